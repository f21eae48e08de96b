"""`vl3syn publish`: what it says of rows that are not published."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.publishing.test_publish import captioned


@pytest.mark.usefixtures("here")
def test_images_that_wait_for_a_stage_are_told(
    tmp_path: Path, make_images: Callable[..., Path], vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The pool has grown, and nothing was computed since; or a run was killed half way."""
    pool, run = make_images(tmp_path / "pool", 4), tmp_path / "run"
    captioned(pool, run)
    make_images(pool, 3, start=4)
    assert vl3syn("index", "--run", run).returncode == 0
    done = vl3syn("publish", "--run", run)
    assert (done.returncode, "3 images wait for a stage and are not published" in done.stderr) == (0, True)
    assert json.loads(vl3syn("publish", "--run", run, "--json").stdout)["pending"] == 3
