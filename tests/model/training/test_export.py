"""An export is small for its users, and the next stage begins with exactly what was learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.errors import UserError
from model import VideoLLaMA3
from model.training import checkpoints
from model.training.metrics_log import read_metrics
from model.training.recipe import Start, TrainRecipe, parse_recipe
from model.training.run import train
from tests.model.training import training_data

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def _recipe(folder: Path, dtype: str | None, stages: int = 2) -> TrainRecipe:
    written: dict[str, Any] = training_data.recipe(folder, steps=2, rows=2) | {"ask": 0}
    written["stages"] = written["stages"][:stages]
    del written["export_dtype"]
    return parse_recipe(written | ({"export_dtype": dtype} if dtype else {}), "test")


@pytest.fixture(scope="module")
def exact(folder: Path) -> Path:
    """Exports in float32 alone, as before there were others."""
    train(_recipe(folder, "float32"), folder / "exact")
    return folder / "exact"


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    """Exports as they come by default."""
    train(_recipe(folder, None), folder / "small")
    return folder / "small"


def _losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out) if line["kind"] == "step"]


def _equal(a: Path, b: Path) -> bool:
    ours, theirs = load_file(a), load_file(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_export_is_bfloat16_and_opens_in_transformers(exact: Path, small: Path) -> None:
    from transformers import VideoLlama3ForConditionalGeneration

    model = small / "2-second/model"
    stored, learned = load_file(model / WEIGHTS), load_file(exact / "2-second/model" / WEIGHTS)
    assert stored.keys() == learned.keys()
    assert all(torch.equal(stored[name], learned[name].bfloat16()) for name in stored)
    assert json.loads((model / "config.json").read_text())["dtype"] == "bfloat16"
    assert VideoLlama3ForConditionalGeneration.from_pretrained(model).dtype == torch.bfloat16
    assert VideoLLaMA3.from_pretrained(model).projector.readout[0].weight.dtype == torch.bfloat16


def test_next_stage_begins_with_the_float32_weights(exact: Path, small: Path) -> None:
    assert _losses(small) == _losses(exact)
    for stage in ("1-first", "2-second"):
        assert _equal(small / stage / "model/float32" / WEIGHTS, exact / stage / "model" / WEIGHTS)
    assert not (exact / "1-first/model/float32").exists()


def test_float32_is_loaded_as_it_was_learned(exact: Path, small: Path) -> None:
    ours, theirs = (
        VideoLLaMA3.from_pretrained(out / "2-second/model", torch.float32).state_dict() for out in (small, exact)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_training_of_an_earlier_version_goes_on(folder: Path, exact: Path, tmp_path: Path) -> None:
    """Its first stage was exported in float32, and the default has changed."""
    train(_recipe(folder, "float32", stages=1), tmp_path)
    train(_recipe(folder, None), tmp_path)
    assert _losses(tmp_path) == _losses(exact)
    assert _equal(tmp_path / "2-second/model/float32" / WEIGHTS, exact / "2-second/model" / WEIGHTS)


def test_damaged_float32_weights_are_refused(folder: Path, small: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(small, tmp_path / "out"))
    shutil.rmtree(out / "2-second")
    file = out / "1-first/model/float32" / WEIGHTS
    stored = file.read_bytes()
    file.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(UserError, match=r"float32/model\.safetensors: is not as its stage has written it"):
        train(_recipe(folder, None), out)


def test_fingerprint_of_a_start_is_that_of_its_float32_weights(exact: Path, small: Path, tmp_path: Path) -> None:
    start = Path(shutil.copytree(small / "1-first/model", tmp_path / "start"))
    before = Start(checkpoint=str(start)).fingerprint()
    shutil.copy(exact / "2-second/model" / WEIGHTS, start / "float32" / WEIGHTS)
    assert Start(checkpoint=str(start)).fingerprint() != before


def test_model_saved_over_an_export_is_the_one_that_is_loaded(exact: Path, small: Path, tmp_path: Path) -> None:
    """Its weights are new, so those in float32 beside them are no longer the same model's."""
    folder = Path(shutil.copytree(small / "1-first/model", tmp_path / "model"))
    VideoLLaMA3.from_pretrained(exact / "2-second/model").save_pretrained(folder)
    expected = load_file(exact / "2-second/model" / WEIGHTS)
    loaded = VideoLLaMA3.from_pretrained(folder, torch.float32)
    loaded.save_pretrained(tmp_path / "again")
    stored = load_file(tmp_path / "again" / WEIGHTS)
    assert all(torch.equal(stored[name], expected[name]) for name in expected)
    assert Start(checkpoint=str(folder)).fingerprint() == Start(checkpoint=str(exact / "2-second/model")).fingerprint()


def test_done_stage_has_no_checkpoints_after_a_kill(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes between the export and their deletion."""
    retain, recipe = checkpoints.retain, _recipe(folder, None, stages=1).model_copy(update={"save_every": 1})

    def killed(stage: Path, keep: int) -> None:
        if not keep:
            raise KeyboardInterrupt
        retain(stage, keep)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "retain", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path)
    assert len(list(tmp_path.glob("1-first/step-*"))) == 2
    train(recipe, tmp_path)
    assert [file.name for file in (tmp_path / "1-first").iterdir()] == ["model"]
