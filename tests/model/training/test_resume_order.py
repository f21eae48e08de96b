"""A training does not go on with keys in another order, where their order decides what is trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.training.metrics_log import MetricsLogger, read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from model.training.trainer import Step
from tests.model.training import training_data

RATES = {".*bias": 1e-4, "language": 1e-3, "": 1e-5}


class StoppedError(Exception):
    """Where a test has had enough."""


def recipe(folder: Path) -> dict[str, Any]:
    """One stage over both sources, of equal shares."""
    written = training_data.recipe(folder, rows=2, steps=4, learning_rates=RATES)
    stage = written["stages"][1] | {"mixture": {"captions": {"samples": 12}, "qa": {"samples": 12}}}
    return {**written, "stages": [stage], "ask": 0}


def reordered(written: dict[str, Any], key: str) -> dict[str, Any]:
    stage = written["stages"][0]
    first, second, *others = stage[key].items()
    return {**written, "stages": [stage | {key: dict([second, first, *others])}]}


def go(written: dict[str, Any], out: Path) -> None:
    train(parse_recipe(written, "test"), out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was `stopped` behind the checkpoint of step 2, and one that is `whole`."""
    folder = tmp_path_factory.mktemp("order")
    plain = MetricsLogger.step

    def step(self: MetricsLogger, done: Step) -> None:
        plain(self, done)
        if done.step == 3:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MetricsLogger, "step", step)
        with pytest.raises(StoppedError):
            go(recipe(folder), folder / "stopped")
    go(recipe(folder), folder / "whole")
    return folder


SAID = {
    "mixture": "mixture in the order ['captions', 'qa'], the recipe has ['qa', 'captions']: put it back",
    "learning_rates": "rates in the order ['.*bias', 'language', ''], the recipe has ['language', '.*bias', '']",
}


@pytest.mark.parametrize("key", SAID)
def test_resume_with_reordered_keys_is_refused(folder: Path, tmp_path: Path, key: str) -> None:
    """The sampler numbers sources by their order, and the first rate that matches decides."""
    out = Path(shutil.copytree(folder / "stopped", tmp_path / "out"))
    with pytest.raises(UserError) as error:
        go(reordered(recipe(folder), key), out)
    assert SAID[key] in str(error.value)
    assert "step-00000002" in str(error.value)
    assert "\n" not in str(error.value)
    go(recipe(folder), out)
    ours, whole = ([r["loss"] for r in read_metrics(run) if r["kind"] == "step"] for run in (out, folder / "whole"))
    assert ours == whole


@pytest.mark.parametrize("key", SAID)
def test_done_stage_with_reordered_keys_is_refused(folder: Path, key: str) -> None:
    with pytest.raises(UserError) as error:
        go(reordered(recipe(folder), key), folder / "whole")
    assert SAID[key] in str(error.value)


def test_sources_may_be_listed_in_another_order(folder: Path, tmp_path: Path) -> None:
    """Each is known by its name; only their order in a mixture counts."""
    out = Path(shutil.copytree(folder / "stopped", tmp_path / "out"))
    written = recipe(folder)
    go({**written, "sources": dict(reversed(written["sources"].items()))}, out)
    ours, whole = ([r["loss"] for r in read_metrics(run) if r["kind"] == "step"] for run in (out, folder / "whole"))
    assert ours == whole
