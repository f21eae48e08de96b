"""Folders that are no checkpoints, but have one in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint


def _file(path: Path, time: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.utime(path.parent, (time, time))


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training whose stages 2 and 10 are done, the latter later; 11 is under way, 12 has not begun."""
    _file(tmp_path / "2-a/model/config.json", 100)
    _file(tmp_path / "10-b/model/config.json", 200)
    _file(tmp_path / "11-c/step-00000009/state.json", 300)
    _file(tmp_path / "11-c/step-00000010/state.json", 400)
    (tmp_path / "12-d").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "inside"),
    [("2-a", "2-a/model"), (".", "10-b/model"), ("11-c", "11-c/step-00000010")],
)
def test_checkpoint_in_the_folder_is_named(training: Path, folder: str, inside: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        load_checkpoint(training / folder)
    assert str(refused.value) == f"{training / folder}: no checkpoint, but it has some in it: give {training / inside}"


@pytest.mark.parametrize("folder", ["12-d", "none", "2-a/model/config.json"])
def test_folder_without_a_checkpoint_is_refused(training: Path, folder: str) -> None:
    with pytest.raises(ValueError, match=r"config.json: cannot be read: give a folder with a checkpoint"):
        load_checkpoint(training / folder)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        load_checkpoint(path)
