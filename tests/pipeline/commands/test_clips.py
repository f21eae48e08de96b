"""`vl3syn clips`: what the run of clips is called."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from manifests import open_run
from tests.film_files import film

Call = Callable[..., subprocess.CompletedProcess[str]]


def test_clips_have_the_name_of_their_films(tmp_path: Path, vl3syn: Call) -> None:
    (tmp_path / "films").mkdir()
    film(tmp_path / "films/a.mp4")
    run = tmp_path / "street"
    for command in (("index", "--videos", tmp_path / "films"), ("clips", "--min-score", 8), ("clips", "--longest", 20)):
        done = vl3syn(*command, "--run", run)
        assert done.returncode == 0, done.stderr
    assert (open_run(str(run)).recipe["name"], open_run(str(run / "clips")).recipe["name"]) == ("street", "street")
