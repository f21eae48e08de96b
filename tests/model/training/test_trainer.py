"""A training from its recipe to its export: what is learned, what a kill costs, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model import Processor, VideoLLaMA3
from model.training.data.annotations import AnnotationSource
from model.training.data.sampler import SourceOrder
from model.training.metrics_log import MetricsLogger, read_metrics
from model.training.recipe import HELD_OUT_SEED, parse_recipe
from model.training.run import train
from model.training.trainer import Step
from tests.model.training import training_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def go(written: dict[str, Any], out: Path) -> Path:
    return train(parse_recipe(written, "test"), out)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A training of two stages that nothing has disturbed."""
    go(training_data.recipe(folder), folder / "whole")
    return folder / "whole"


def trace(out: Path) -> list[tuple[str, int, float]]:
    return [(r["stage"], r["step"], r["loss"]) for r in read_metrics(out) if r["kind"] == "step"]


def weights(out: Path, stage: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(out / stage / "model/model.safetensors")
    return tensors


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_stage_starts_from_the_last_one_and_its_loss_falls(whole: Path) -> None:
    losses = trace(whole)
    assert [(stage, step) for stage, step, _ in losses] == [(s, n) for s in ("first", "second") for n in range(1, 7)]
    assert losses[5][2] < losses[0][2] - 0.2
    assert losses[6][2] < losses[0][2]  # it goes on from what the first stage has learned
    model, processor = (kind.from_pretrained(whole / "2-second/model") for kind in (VideoLLaMA3, Processor))
    tensors = processor(
        [{"role": "user", "content": [{"type": "image", "image": training_data.picture(1)}, "Say it."]}]
    )
    assert model.generate(**tensors, max_new_tokens=3)[0].numel()


def test_export_has_the_same_logits_in_transformers(whole: Path) -> None:
    from transformers import VideoLlama3ForConditionalGeneration

    ours, processor = (kind.from_pretrained(whole / "2-second/model") for kind in (VideoLLaMA3, Processor))
    theirs = VideoLlama3ForConditionalGeneration.from_pretrained(whole / "2-second/model")
    row = processor([{"role": "user", "content": [{"type": "image", "image": training_data.picture(1)}, "Say it."]}])
    expected = theirs(
        input_ids=row["input_ids"][None],
        pixel_values=row["pixel_values"],
        image_grid_thw=row["grid_thw"],
        image_merge_sizes=row["merge_sizes"],
    ).logits[0]
    torch.testing.assert_close(ours(**row).logits, expected, atol=2e-5, rtol=1e-4)


def test_finished_training_does_nothing_when_run_again(folder: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    lines = (whole / "metrics.jsonl").read_text()
    go(training_data.recipe(folder), whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")} == before
    assert (whole / "metrics.jsonl").read_text() == lines


def test_frozen_parts_are_bit_equal_after_training(folder: Path, whole: Path, tmp_path: Path) -> None:
    rates = {"vision": "frozen", "projector": 1e-3, "language": "frozen"}
    written = training_data.recipe(folder, learning_rates=rates, steps=3)
    written |= {"model": {"checkpoint": str(whole / "1-first/model")}, "stages": written["stages"][:1]}
    go(written, tmp_path)
    before, after = weights(whole, "1-first"), weights(tmp_path, "1-first")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.projector.") for name in changed)


def _killed_after(file: Path, out: Path, steps: int, pause: float = 0) -> None:
    """Run `vl3syn train`, and kill -9 it when it has shown so many steps, after a pause in seconds."""
    command = [sys.executable, "-m", "pipeline", "train", str(file), "--run", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert process.stdout
    shown = 0
    while shown < steps and (line := process.stdout.readline()):
        shown += "  loss " in line  # of a step; the folder of an export may have "losses" in its name
    time.sleep(pause)
    process.kill()
    process.wait()


class StoppedError(Exception):
    """Where a test has had enough."""


def _stopped_after(written: dict[str, Any], out: Path, steps: int) -> None:
    """Train so many steps, and no more."""
    plain, seen = MetricsLogger.step, list[Step]()

    def step(self: MetricsLogger, finished: Step) -> None:
        plain(self, finished)
        seen.append(finished)
        if len(seen) == steps:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        with pytest.raises(StoppedError):
            go(written, out)


def _is_undisturbed(out: Path, whole: Path) -> None:
    assert trace(out) == trace(whole)
    for stage in ("1-first", "2-second"):
        assert same(weights(out, stage), weights(whole, stage))


def test_resumed_training_equals_an_undisturbed_one(folder: Path, whole: Path, tmp_path: Path) -> None:
    """Stopped in the second stage."""
    _stopped_after(training_data.recipe(folder), tmp_path, 9)
    assert [path.name for path in tmp_path.glob("*/step-*")] == ["step-00000002"]
    go(training_data.recipe(folder), tmp_path)
    _is_undisturbed(tmp_path, whole)


@pytest.mark.parametrize(
    "steps", [pytest.param(3, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.thorough)]
)
def test_killed_training_equals_an_undisturbed_one(folder: Path, whole: Path, tmp_path: Path, steps: int) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(training_data.recipe(folder), sort_keys=False))
    _killed_after(file, tmp_path / "out", steps)
    assert len(trace(tmp_path / "out")) >= steps
    assert not (tmp_path / "out/2-second/model").exists()
    go(training_data.recipe(folder), tmp_path / "out")
    _is_undisturbed(tmp_path / "out", whole)


@pytest.mark.slow
def test_training_killed_ten_times_ends_with_the_same_result(folder: Path, whole: Path, tmp_path: Path) -> None:
    import random

    dice = random.Random(7)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(training_data.recipe(folder), sort_keys=False))
    for _ in range(10):
        _killed_after(file, tmp_path / "out", steps=1, pause=dice.uniform(0, 0.5))
    go(training_data.recipe(folder), tmp_path / "out")
    _is_undisturbed(tmp_path / "out", whole)


def test_other_settings_in_the_middle_of_a_stage_are_refused(folder: Path, whole: Path, tmp_path: Path) -> None:
    written = training_data.recipe(folder)
    _stopped_after(written, tmp_path / "out", 3)
    with pytest.raises(ValueError, match=r"was made with rows: 4, the recipe says 8: put it back"):
        go(training_data.recipe(folder, rows=8), tmp_path / "out")
    with pytest.raises(ValueError, match=r"stage first is done, with steps 6, and the recipe says 7"):
        go(training_data.recipe(folder, steps=7), whole)
    with pytest.raises(ValueError, match="a training with seed 3 is there, the recipe says 4"):
        go({**written, "seed": 4}, whole)
    with pytest.raises(ValueError, match="a training with shuffle_blocks 4 is there, the recipe says 1"):
        go({**written, "shuffle_blocks": 1}, whole)
    captions = {**written["sources"]["captions"], "held_out": 5}
    with pytest.raises(
        ValueError, match=r"a training with source captions {'held_out': 4, .*} is there, the recipe says"
    ):
        go({**written, "sources": {**written["sources"], "captions": captions}}, whole)


def test_bad_held_out_samples_are_logged_once_with_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = training_data.recipe(tmp_path, steps=3) | {"evaluate_every": 1}
    written["stages"] = [written["stages"][1]]
    written["sources"]["qa"]["held_out"] = 4
    file = tmp_path / "qa/qa.jsonl"
    held_out = SourceOrder(AnnotationSource("qa", str(file)), 4, 0, HELD_OUT_SEED, 1).held_out.tolist()
    lines = file.read_text().splitlines()
    lines[held_out[0]] = "no json"  # is not read
    (tmp_path / "qa/broken.png").write_text("<html>404")
    turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "Red."}]
    lines[held_out[1]] = json.dumps({"image": "broken.png", "conversations": turns})  # is read, but not prepared
    file.write_text("\n".join(lines))
    go(written, tmp_path / "out")
    logged = [record.getMessage() for record in caplog.records if "held-out" in record.getMessage()]
    assert len(logged) == 1
    first = f"skipped 2 held-out samples; the first: qa: qa.jsonl line {held_out[0] + 1}: no JSON"
    assert logged[0].startswith(first)
    losses = [line["losses"]["qa"] for line in read_metrics(tmp_path / "out") if line["kind"] == "held_out"]
    assert len(losses) == 3
    assert all(loss > 0 for loss in losses)


def test_source_that_grows_during_a_stage_is_refused(tmp_path: Path) -> None:
    written = training_data.recipe(tmp_path)
    written["stages"] = written["stages"][1:]
    _stopped_after(written, tmp_path / "out", 3)
    with open(tmp_path / "qa/qa.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match=r"source qa had 30 samples and has 31: put back what there was"):
        go(written, tmp_path / "out")


def test_nan_loss_stops_with_the_samples_and_keeps_the_weights(folder: Path, whole: Path, tmp_path: Path) -> None:
    model = VideoLLaMA3.from_pretrained(whole / "1-first/model")
    with torch.no_grad():
        model.projector.readout[0].weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    Processor.tiny().save_pretrained(tmp_path / "nan")
    written = training_data.recipe(folder) | {"model": {"checkpoint": str(tmp_path / "nan")}}
    with pytest.raises(
        ValueError, match=r"stage first, step 1: loss nan.* captions: shard-0000\d.parquet row \d+ \(id 10"
    ):
        go(written, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_schedule_in_epochs_ends_with_the_samples(folder: Path, tmp_path: Path) -> None:
    written = training_data.recipe(folder, steps=None, epochs=2)
    written["stages"] = written["stages"][:1]
    go(written, tmp_path)
    steps = [r for r in read_metrics(tmp_path) if r["kind"] == "step"]
    assert sum(r["samples"] for r in steps) == 2 * 36  # 40 less 4 held out
    assert steps[-1]["progress"] == 1
    rates = [r["rates"]["vision"] for r in steps]
    assert max(rates) <= 1e-3
    assert 0 < rates[-1] < max(rates)


def test_activation_checkpointing_does_not_change_the_result(folder: Path, whole: Path, tmp_path: Path) -> None:
    written = training_data.recipe(folder, checkpointing=True)
    go(written | {"stages": written["stages"][:1]}, tmp_path)
    torch.testing.assert_close(
        [loss for _, _, loss in trace(tmp_path)], [loss for _, _, loss in trace(whole)[:6]], atol=1e-5, rtol=1e-5
    )


def test_adapters_are_merged_when_a_stage_is_exported(folder: Path, whole: Path, tmp_path: Path) -> None:
    rates = {".*lora_": 1e-2, "projector": 1e-3, "": "frozen"}
    written = training_data.recipe(folder, learning_rates=rates, lora={"r": 4, "alpha": 8}, steps=4)
    written |= {"model": {"checkpoint": str(whole / "1-first/model")}, "stages": written["stages"][:1]}
    go(written, tmp_path)
    before, after = weights(whole, "1-first"), weights(tmp_path, "1-first")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed)
    assert not any("embed" in name or "vision" in name for name in changed)
    losses = [loss for _, _, loss in trace(tmp_path)]
    assert losses[-1] < losses[0]
    assert not list((tmp_path / "1-first").glob("step-*")), "a stage that is done needs no checkpoints"
    _stopped_after(written, tmp_path / "again", 3)
    stored = load_file(tmp_path / "again/1-first/step-00000002/weights.safetensors")
    assert all("lora_" in name or name.startswith("projector") for name in stored)


def test_recipe_that_does_not_fit_is_a_one_line_error(folder: Path) -> None:
    good = training_data.recipe(folder)
    for change, message in (
        ({"model": {"preset": "tiny", "checkpoint": "x"}}, "model: give one of"),
        ({"model": {"preset": "2b"}}, "preset 2b needs `tokenizer: DIR`"),
        ({"stagse": []}, "stagse: unknown key"),
        ({"sources": {"captions": {"shards": "a", "annotations": "b"}}}, "sources.captions: give one of"),
        ({"stages": [{**good["stages"][0], "mixture": {"nobody": 1}}]}, "no source 'nobody': name one of captions, qa"),
        ({"stages": [{**good["stages"][0], "epochs": 1}]}, "stages.0: give one of `steps` and `epochs`"),
        ({"stages": [{**good["stages"][0], "lanes": 3}]}, "rows 4 must be a multiple of lanes 3"),
        ({"stages": [{**good["stages"][0], "learning_rates": {"(": 1}}]}, r"'\(' is no regular expression"),
        ({"stages": [{**good["stages"][0], "tokens": 64}]}, "tokens 64 have to hold visual_tokens 64 and the text"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            parse_recipe({**good, **change}, "r.yaml")
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("r.yaml: ")


def test_metrics_of_a_resumed_training_have_each_step_once(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"step", "held_out", "answer"}
    held = [line for line in lines if line["kind"] == "held_out"]
    assert [sorted(line["losses"]) for line in held] == [["captions"], ["captions", "qa"]]
