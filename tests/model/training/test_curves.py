"""Loss curves out of metrics.jsonl."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.training.curves import draw
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.training import training_data


def _write(folder: Path, *stages: str) -> None:
    lines = [
        {"kind": "step", "stage": stage, "step": step, "loss": 4 / step} for stage in stages for step in range(1, 41)
    ]
    lines += [{"kind": "held_out", "stage": stages[0], "step": step, "losses": {"scenes": 1.0}} for step in (20, 40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "st')


def test_each_stage_has_a_panel_in_both_files(tmp_path: Path) -> None:
    _write(tmp_path, "encoder", "alignment")
    draw(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "curves.svg", "metrics.jsonl"]
    drawing = (tmp_path / "curves.svg").read_text()
    for text in ("encoder: 1.17 to 0.113", "alignment: 1.17 to 0.113", "held out: scenes", "loss, nats per token"):
        assert re.search(f"<!-- {text} -->", drawing), text
    with Image.open(tmp_path / "curves.png") as picture:
        width, height = picture.size
        pixels = np.asarray(picture.convert("RGB"))
    assert width > 1.5 * height
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "something is drawn"


def test_training_without_a_step_draws_no_curves(tmp_path: Path) -> None:
    draw(tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_draws_the_curves_of_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.training.curves.draw", draw)  # tests draw none
    before = os.umask(0o027)
    try:
        train(parse_recipe(training_data.recipe(tmp_path, steps=1), "test"), tmp_path / "run")
    finally:
        os.umask(before)
    drawn = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in (tmp_path / "run").glob("curves.*")}
    assert drawn == {"curves.png": "0o640", "curves.svg": "0o640"}
    drawing = (tmp_path / "run/curves.svg").read_text()
    assert re.findall("<!-- (first|second): ", drawing) == ["first", "second"]
