"""Which samples are held out of a training, by number or as a file, and what is told of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from model import Processor, VideoLLaMA3
from model.evaluate import compute_loss
from model.training.data.annotations import AnnotationSource
from model.training.metrics_log import MetricsLogger, read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.trainer import Step
from tests.model.training import training_data


def go(written: dict[str, Any], out: Path) -> Path:
    return train(parse_recipe(written, "test"), out)


def recipe(folder: Path, steps: int = 1, **changes: Any) -> dict[str, Any]:
    """One stage over the questions, 4 of 30 held out, all of which are answered."""
    written = training_data.recipe(folder, steps=steps) | {"ask": 4}
    written["stages"] = [written["stages"][1] | {"mixture": {"qa": 1}}]
    written["sources"] = {"qa": written["sources"]["qa"] | {"held_out": 4}}
    return written | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held")


def answered(out: Path) -> list[int]:
    """The lines of the held-out samples, from 0."""
    names = [record["sample"] for record in read_metrics(out) if record["kind"] == "answer"]
    return sorted(int(name.rpartition("line ")[2]) - 1 for name in names)


def losses(out: Path) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in read_metrics(out) if r["kind"] == "step"]


def drawn(seed: int) -> list[int]:
    """The documented choice: the first 4 of a permutation of all 30 rows by this seed."""
    return sorted(np.random.default_rng([seed, 30]).permutation(30)[:4].tolist())


@pytest.mark.parametrize("seed", [3, 4])
def test_held_out_samples_do_not_depend_on_the_seed(folder: Path, tmp_path: Path, seed: int) -> None:
    go(recipe(folder, seed=seed), tmp_path / "out")
    assert answered(tmp_path / "out") == drawn(42)


def test_held_out_seed_chooses_the_held_out_samples(folder: Path, tmp_path: Path) -> None:
    go(recipe(folder, held_out_seed=7), tmp_path / "out")
    assert answered(tmp_path / "out") == drawn(7)
    for other in ({"held_out_seed": 8}, {"held_out_seed": 0}):
        with pytest.raises(ValueError, match=r"a training with held_out_seed 7 is there, the recipe says \d: put it"):
            go(recipe(folder, **other), tmp_path / "out")


def test_training_of_an_earlier_version_keeps_its_held_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions chose them by `seed`, which is 3, and had no `held_out_seed` in recipe.yaml."""
    go(recipe(folder, held_out_seed=3, steps=3), tmp_path / "whole")
    plain = MetricsLogger.step

    def step(self: MetricsLogger, done: Step) -> None:
        plain(self, done)
        if done.step == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        with pytest.raises(KeyboardInterrupt):
            go(recipe(folder, held_out_seed=3, steps=3, save_every=1), out)
    stored = yaml.safe_load((out / "recipe.yaml").read_text())
    assert stored.pop("held_out_seed") == 3
    (out / "recipe.yaml").write_text(yaml.safe_dump(stored))
    go(recipe(folder, steps=3), out)
    assert answered(out) == answered(tmp_path / "whole") == drawn(3)
    assert losses(out) == losses(tmp_path / "whole")
    for file in ("recipe.yaml", "1-second/model/vl3syn_training.json"):
        content = yaml.safe_load((out / file).read_text())
        assert content.get("recipe", content)["held_out_seed"] == 3


@pytest.fixture(scope="module")
def exam(folder: Path) -> Path:
    """Six further samples, with images of their own, in another folder."""
    lines = [training_data.annotation(folder / "exam", number) for number in range(40, 46)]
    (folder / "exam/exam.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "exam/exam.jsonl"


def test_held_out_file_is_evaluated_and_all_samples_are_trained(folder: Path, exam: Path, tmp_path: Path) -> None:
    written = recipe(folder)
    written["sources"]["qa"]["held_out"] = str(exam)
    written["stages"][0] |= {"steps": None, "epochs": 1}
    model = go(written, tmp_path / "out")
    records = read_metrics(tmp_path / "out")
    assert sum(r["samples"] for r in records if r["kind"] == "step") == 30
    (looked,) = [r["losses"] for r in records if r["kind"] == "held_out"]
    exported, processor = VideoLLaMA3.from_pretrained(model), Processor.from_pretrained(model)
    samples = map(AnnotationSource("qa", str(exam)).sample, range(6))
    assert looked == {"qa": pytest.approx(compute_loss(exported, processor, samples).mean, rel=1e-5)}
    assert {r["sample"] for r in records if r["kind"] == "answer"} <= {f"qa: exam.jsonl line {n}" for n in range(1, 7)}
    assert len([r for r in records if r["kind"] == "answer"]) == 4


def test_held_out_file_of_shards_has_the_same_caption(tmp_path: Path) -> None:
    written = training_data.recipe(tmp_path, steps=1)
    written["stages"] = written["stages"][:1]
    training_data.shards(tmp_path / "exam", images=5)
    written["sources"] = {"captions": written["sources"]["captions"] | {"held_out": str(tmp_path / "exam")}}
    go(written, tmp_path / "out")
    (answer,) = [r for r in read_metrics(tmp_path / "out") if r["kind"] == "answer"]
    assert (answer["sample"], answer["reference"]) == (
        "captions: shard-00000.parquet row 0 (id 1000)",
        training_data.caption(0),
    )


def test_held_out_file_may_change_in_the_middle_of_a_training(folder: Path, exam: Path, tmp_path: Path) -> None:
    """Nothing is trained on it, and none is the same as 0."""
    written = recipe(folder)
    written["sources"]["qa"]["held_out"] = 0
    go(written, tmp_path / "out")
    for value in (str(exam), str(folder / "qa/qa.jsonl"), 0):
        written["sources"]["qa"]["held_out"] = value
        go(written, tmp_path / "out")
    written["sources"]["qa"]["held_out"] = 1
    with pytest.raises(ValueError, match=r"a training with source qa {'held_out': 0, .* the recipe says"):
        go(written, tmp_path / "out")


def test_missing_held_out_file_ends_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    written = recipe(folder)
    written["sources"]["qa"]["held_out"] = "exams.jsonl"
    with pytest.raises(ValueError, match=r"^qa: .*/exams.jsonl: cannot be read: No such file or directory$"):
        go(written, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_source_that_no_stage_uses_is_warned_about(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = recipe(folder)
    written["sources"]["exam"] = {"annotations": "exam.jsonl", "held_out": 9}
    with caplog.at_level(logging.WARNING, "vl3syn.train"):
        go(written, tmp_path / "out")
    assert [record.getMessage() for record in caplog.records] == [
        "source exam: no stage's mixture names it: nothing of it is trained on or held out. To evaluate on its samples "
        "only, name its file as `held_out` of another source"
    ]


def looks(out: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(out) if record["kind"] in ("held_out", "answer")]


@pytest.mark.parametrize("end", ["epochs", "steps"])
def test_evaluation_that_a_kill_ended_is_made_up_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A checkpoint of the same step is there already, so the step is not repeated. Another kill changes nothing."""
    from model.training import run

    written = recipe(folder, steps=4, save_every=2, evaluate_every=2, ask=2)
    if end == "epochs":
        written["stages"][0] |= {"steps": None, "epochs": 1, "tokens": 128}
    go(written, tmp_path / "whole")
    assert {record["step"] for record in looks(tmp_path / "whole")} >= {2, 4}
    plain, killed = run.evaluate_held_out, []

    def kill(trainer: Any, *arguments: Any) -> None:
        if trainer.step not in killed:
            killed.append(trainer.step)
            raise KeyboardInterrupt
        plain(trainer, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run, "evaluate_held_out", kill)
        while not (tmp_path / "out/1-second/model").exists():
            try:
                go(written, tmp_path / "out")
            except KeyboardInterrupt:
                continue
    assert killed[:2] == [2, 4]
    assert looks(tmp_path / "out") == looks(tmp_path / "whole")
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
