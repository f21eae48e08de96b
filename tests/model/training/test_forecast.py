"""What is forecast is what training then reports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.training.forecast import StageForecast, forecast
from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.source_sample import Measurer
from model.training.stage_plan import plan_stages
from tests.model.training import training_data


def forecasts(written: dict[str, Any], samples: int = 1000, **limits: Any) -> list[StageForecast]:
    measurer = Measurer(1)
    try:
        return [forecast(plan, measurer, samples, **limits) for plan in plan_stages(parse_recipe(written, "test"))]
    finally:
        measurer.close()


def text_source(folder: Path, words: list[int], **others: Any) -> dict[str, Any]:
    """A recipe of one stage over texts with answers of so many letters. A negative number makes a bad sample."""
    lines = [
        {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a" * abs(n)}]} for n in words
    ]
    (folder / "broken.png").write_bytes(b"no image")
    bad = {
        "image": "broken.png",
        "conversations": [{"from": "human", "value": "<image>?"}, lines[0]["conversations"][1]],
    }
    file = folder / "texts.jsonl"
    file.write_text("\n".join(json.dumps(bad if n < 0 else line) for n, line in zip(words, lines, strict=True)))
    written = training_data.recipe(folder, **others)
    return {
        **written,
        "sources": {"texts": {"annotations": str(file)}},
        "stages": [{**written["stages"][0], "mixture": {"texts": 1}}],
    }


def test_forecast_of_a_small_recipe_equals_its_training(tmp_path: Path) -> None:
    """By steps, and by epochs with a part of one; with rows of text alone, and an image that is missing."""
    written = training_data.recipe(tmp_path, tokens=128, visual_tokens=48)
    (tmp_path / "qa" / "6.png").unlink()
    by_steps, by_epochs = written["stages"]
    by_epochs |= {"epochs": 1.5, "learning_rates": {"language": 1e-3, "": "frozen"}}
    del by_epochs["steps"]
    by_steps["steps"] = 3
    seen = forecasts(written)
    train(parse_recipe(written, "test"), tmp_path / "out")
    lines = [line for line in read_metrics(tmp_path / "out") if line["kind"] == "step"]
    for stage in seen:
        steps = [line for line in lines if line["stage"] == stage.name]
        assert stage.exact
        assert stage.steps.value == len(steps)
        for name, key in {"pieces": "samples", "tokens": "tokens", "learned": "labelled", "patches": "patches"}.items():
            assert stage.totals[name].value == sum(line[key] for line in steps), name
        assert stage.totals["flops"].value == pytest.approx(sum(line["flops"] for line in steps), rel=1e-9)
        assert stage.totals["skipped"].value == sum(len(line["skipped"]) for line in steps)
    assert seen[1].totals["skipped"].value > 0
    (reason,) = seen[1].sources[1].reasons
    assert (reason.reason, reason.example.startswith("qa: qa.jsonl line ")) == (
        "qa.jsonl line …: …: no such file",
        True,
    )


def test_forecast_from_a_sample_is_near_and_says_how_near(tmp_path: Path) -> None:
    words = [10 + 7 * n % 61 for n in range(600)]
    written = text_source(tmp_path, words, tokens=512, epochs=1, steps=None)
    (whole,) = forecasts(written)
    (sampled,) = forecasts(written, samples=100)
    assert whole.exact
    assert not sampled.exact
    assert (sampled.sources[0].measured, sampled.sources[0].distinct) == (100, 600)
    for name in ("tokens", "learned"):
        estimate, truth = sampled.totals[name], whole.totals[name].value
        assert estimate.low <= truth <= estimate.high, name
        assert 0 < estimate.high - estimate.low < 0.2 * truth, name
    assert sampled.totals["samples"].value == 600
    assert sampled.totals["skipped"].low == 0 < sampled.totals["skipped"].high < 0.06 * 600
    assert sampled.steps.value == pytest.approx(whole.steps.value, rel=0.1)


def test_long_stage_is_extrapolated(tmp_path: Path) -> None:
    written = text_source(tmp_path, [20 + n % 9 for n in range(90)], tokens=256, epochs=20, steps=None)
    (whole,), (part,) = forecasts(written), forecasts(written, most=300)
    assert (whole.totals["samples"].value, part.totals["samples"].value) == (1800, 1800)
    assert part.steps.value == pytest.approx(whole.steps.value, rel=0.02)
    assert part.totals["tokens"].value == pytest.approx(whole.totals["tokens"].value, rel=0.02)
    assert not part.exact


def test_unseen_skipped_samples_are_in_every_interval(tmp_path: Path) -> None:
    """All samples are alike and good, as far as is seen: the others may be bad, and give no tokens."""
    written = text_source(tmp_path, [20] * 300, tokens=256, epochs=1, steps=None)
    (stage,) = forecasts(written, samples=50)
    source = stage.sources[0]
    assert (stage.totals["skipped"].value, stage.totals["samples"].value) == (0, 300)
    missed = stage.totals["skipped"].high
    assert 15 < missed < 30  # Wilson: 300 x 1.96^2 / (50 + 1.96^2)
    for totals in (stage.totals, source.totals):
        for name in ("pieces", "tokens", "learned", "text", "flops"):
            estimate = totals[name]
            assert estimate.low == pytest.approx(estimate.value * (1 - missed / 300), rel=1e-3), name
    assert stage.totals["samples"].exact
    assert stage.steps.low <= stage.steps.value * (1 - missed / 300)


def test_split_samples_are_counted_once_and_by_piece(tmp_path: Path) -> None:
    turns = [{"from": who, "value": "a" * 30} for _ in range(6) for who in ("human", "gpt")]
    (tmp_path / "long.jsonl").write_text("\n".join([json.dumps({"conversations": turns})] * 4))
    written = text_source(tmp_path, [5], tokens=256, epochs=1, steps=None)
    written["sources"]["texts"] = {"annotations": str(tmp_path / "long.jsonl")}
    (stage,) = forecasts(written)
    assert [stage.totals[name].value for name in ("samples", "split")] == [4, 4]
    assert stage.totals["pieces"].value >= 8
    assert stage.totals["skipped"].value == 0


def test_bad_samples_in_a_row_end_it_as_training_ends(tmp_path: Path) -> None:
    written = text_source(tmp_path, [-1] * 20) | {"skip_limit": 10}
    message = (
        "10 bad samples in a row, so the run stops; the last: texts: texts.jsonl line .*: cannot read .*broken.png"
    )
    with pytest.raises(UserError, match=message):
        forecasts(written)
    with pytest.raises(UserError, match=message):
        train(parse_recipe(written, "test"), tmp_path / "out")


def test_stage_without_a_good_sample_ends_it_as_training_ends(tmp_path: Path) -> None:
    written = text_source(tmp_path, [-1] * 5, epochs=1, steps=None)
    message = (
        "stage first: not one sample to train on; the last of 5 that were skipped: texts: .*cannot read .*broken.png"
    )
    with pytest.raises(UserError, match=message):
        forecasts(written)
    with pytest.raises(UserError, match=message):
        train(parse_recipe(written, "test"), tmp_path / "out")


def test_time_limit_leaves_some_samples_of_each_source(tmp_path: Path) -> None:
    written = training_data.recipe(tmp_path)
    stage = forecasts(written, deadline=-math.inf)[1]
    assert {source.name: source.measured for source in stage.sources} == {"captions": 8, "qa": 8}
    assert not stage.exact
