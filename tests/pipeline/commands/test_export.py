"""`vl3syn export`, through the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model import Processor, VideoLLaMA3
from model.config import preset

Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """Call the command within this process."""
    from pipeline.commands.app import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vl3syn", "export", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        return (code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path / "ckpt")
    Processor.tiny().save_pretrained(tmp_path / "ckpt")
    return tmp_path / "ckpt"


def test_export_writes_the_encoder_alone(export: Export, checkpoint: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "new/encoder"
    assert export(checkpoint, "--encoder", encoder) == (0, f"the encoder of {checkpoint} is in {encoder}\n", "")
    VideoLLaMA3(preset("tiny")).language.save_pretrained(tmp_path / "language")
    joined = VideoLLaMA3.from_parts(encoder, tmp_path / "language").vision.state_dict()
    stored = VideoLLaMA3.from_pretrained(checkpoint).vision.state_dict()
    assert all(torch.equal(joined[name], stored[name]) for name in stored)


def test_encoder_of_an_export_in_bfloat16_is_exact(export: Export, checkpoint: Path, tmp_path: Path) -> None:
    """The next training begins with the weights that were learned, beside the rounded ones."""
    learned = VideoLLaMA3.from_pretrained(checkpoint)
    learned.save_pretrained(checkpoint, {name: weight.bfloat16() for name, weight in learned.state_dict().items()})
    learned.save_pretrained(checkpoint / "float32")
    export(checkpoint, "--encoder", tmp_path / "encoder")
    learned.language.save_pretrained(tmp_path / "language")
    joined = VideoLLaMA3.from_parts(tmp_path / "encoder", tmp_path / "language").vision.state_dict()
    assert all(torch.equal(joined[name], weight) for name, weight in learned.vision.state_dict().items())


def test_export_into_a_folder_with_files_is_refused(export: Export, checkpoint: Path) -> None:
    before = {file: file.read_bytes() for file in checkpoint.iterdir()}
    code, out, err = export(checkpoint, "--encoder", checkpoint)
    assert (code, out, err) == (1, "", f"vl3syn: --encoder {checkpoint}: has files in it: give a new folder\n")
    assert {file: file.read_bytes() for file in checkpoint.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("none", "--encoder", "out"), 1, "vl3syn: none/config.json: cannot be read: give a folder with a checkpoint"),
        (("", "--encoder", "out"), 1, "vl3syn: CKPT: an empty path"),
        (("none", "--encoder", ""), 1, "vl3syn: --encoder: an empty path"),
        (("none",), 2, "Missing option '--encoder'"),
    ],
)
def test_wrong_paths_of_export_are_one_line_errors(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = export(*arguments)
    assert done[0] == code
    assert said in done[2]
    assert not list(tmp_path.iterdir())
