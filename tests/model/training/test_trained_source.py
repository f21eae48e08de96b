"""What was held out of a training is told of the data that it had, not of what they have become."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.evaluate import evaluate
from model.training.data.annotations import AnnotationConfig
from model.training.metrics_log import MetricsLogger
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.trained_source import trained_source
from model.training.trainer import Step
from tests.model.training import training_data

EXPORTS = ("1-first/model", "2-second/model")


class StoppedError(Exception):
    """Where a test has had enough."""


def recipe(folder: Path, held_out: Any = 4, stages: int = 2) -> dict[str, Any]:
    """The first stage is over the questions alone, the second over the captions alone."""
    written = training_data.recipe(folder, steps=2, rows=2) | {"ask": 0, "save_every": 1}
    written["sources"]["qa"]["held_out"] = held_out
    for stage, source in zip(written["stages"], ("qa", "captions"), strict=True):
        stage["mixture"] = {source: 1}
    return {**written, "stages": written["stages"][:stages]}


def go(written: dict[str, Any], out: Path) -> None:
    train(parse_recipe(written, "test"), out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and the training `out`, whose stages are done, and `stopped`, with a step of the second stage."""
    folder = tmp_path_factory.mktemp("trained")
    go(recipe(folder), folder / "out")
    plain = MetricsLogger.step

    def step(self: MetricsLogger, done: Step) -> None:
        plain(self, done)
        if self._stage == "second" and done.step == 2:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        with pytest.raises(StoppedError):
            go(recipe(folder), folder / "stopped")
    return folder


@pytest.fixture
def questions(trained: Path) -> Any:
    """The file of the questions, which a test may change; afterwards it is as it was."""
    file = trained / "qa/qa.jsonl"
    content = file.read_bytes()
    yield file
    file.write_bytes(content)


def held_out(checkpoint: Path, questions: Path, part: bool = True) -> int:
    return evaluate(
        checkpoint, AnnotationConfig(annotations=str(questions)), held_out=part, max_new_tokens=0
    ).loss.samples


def grow(file: Path) -> None:
    with file.open("a") as opened:
        opened.write(json.dumps(training_data.annotation(file.parent, 50)) + "\n")


@pytest.mark.parametrize("checkpoint", [*(f"out/{export}" for export in EXPORTS), "stopped/2-second/step-00000001"])
def test_held_out_of_changed_data_are_refused(trained: Path, questions: Path, checkpoint: str) -> None:
    """The second stage has not read them: what the first had is handed on."""
    model = trained / checkpoint
    assert (held_out(model, questions), held_out(model, questions, False)) == (4, 26)
    before = questions.read_text()
    grow(questions)
    for part in (True, False):
        with pytest.raises(
            UserError, match=r"qa\.jsonl: had 30 samples and has 31 since the training: .*: put "
        ) as said:
            held_out(model, questions, part)
        assert "\n" not in str(said.value)
    lines = before.splitlines(keepends=True)
    questions.write_text("".join(lines[::-1]))
    with pytest.raises(UserError, match=r"qa\.jsonl: has changed since the training: which samples it held out is not"):
        held_out(model, questions)
    assert evaluate(model, AnnotationConfig(annotations=str(questions)), max_new_tokens=0).loss.samples == 30


def test_export_of_an_earlier_version_is_not_checked(trained: Path, questions: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained / "out/1-first/model", tmp_path / "model"))
    stored = json.loads((model / "vl3syn_training.json").read_text())
    assert stored.pop("rows") == {"qa": 30}
    assert stored.pop("data").keys() == {"source qa"}
    (model / "vl3syn_training.json").write_text(json.dumps(stored))
    source = trained_source(model, AnnotationConfig(annotations=str(questions)))
    assert source is not None
    assert not source.is_known
    grow(questions)
    assert (held_out(model, questions), held_out(model, questions, False)) == (4, 27)


@pytest.mark.parametrize("number", [4, 0])
def test_next_stage_on_changed_data_is_refused(trained: Path, questions: Path, tmp_path: Path, number: int) -> None:
    """Where nothing is held out by number, data may grow between stages."""
    go(recipe(trained, number, stages=1), tmp_path / "out")
    grow(questions)
    written = recipe(trained, number)
    written["stages"][1]["mixture"] = {"qa": 1}
    if number:
        with pytest.raises(UserError, match=r"2-second: source qa had 30 samples and has 31 since the stage before: s"):
            go(written, tmp_path / "out")
        assert not (tmp_path / "out/2-second").exists()
    else:
        go(written, tmp_path / "out")
        assert json.loads((tmp_path / "out/2-second/model/vl3syn_training.json").read_text())["rows"] == {"qa": 31}
