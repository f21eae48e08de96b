"""`vl3syn clips`: what the run of clips is called, and what is said of each film."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests import open_run
from tests.film_files import film
from tests.stored_facts import store_run

Call = Callable[..., subprocess.CompletedProcess[str]]


def test_clips_have_the_name_of_their_films(tmp_path: Path, vl3syn: Call) -> None:
    (tmp_path / "films").mkdir()
    film(tmp_path / "films/a.mp4")
    run = tmp_path / "street"
    for command in (("index", "--videos", tmp_path / "films"), ("clips", "--min-score", 8), ("clips", "--longest", 20)):
        done = vl3syn(*command, "--run", run)
        assert done.returncode == 0, done.stderr
    assert (open_run(str(run)).recipe["name"], open_run(str(run / "clips")).recipe["name"]) == ("street", "street")


def test_every_film_has_a_line_with_its_fate(tmp_path: Path, vl3syn: Call) -> None:
    (tmp_path / "films").mkdir()
    film(tmp_path / "films/a.mp4")
    film(tmp_path / "films/wide.mp4", size=(256, 64))
    (tmp_path / "films/page.mp4").write_bytes(b"<!DOCTYPE html><title>404</title>")
    run = tmp_path / "run"
    narrow = {"stage": "aspect_ratio", "keep": {"max": 2.5}}
    shapes = {"a.mp4": {"aspect_ratio": 1.5}, "wide.mp4": {"aspect_ratio": 4.0}}
    cuts = {"a.mp4": {"length": 2.0, "cut_times": [], "cut_scores": [], "key_times": [0.0]}}
    recipe = {"pool": {"videos": str(tmp_path / "films")}, "stages": [narrow, {"stage": "scenes"}]}
    store_run(run, recipe, {"aspect_ratio": shapes, "scenes": cuts})
    done = vl3syn("clips", "--run", run, "--films", "--json")
    assert done.returncode == 0, done.stderr
    kept, page, wide = json.loads(done.stdout)
    assert kept == {"film": "a.mp4", "fate": "kept", "clips": 1, "seconds": 2.0, "reason": None}
    assert wide == {
        "film": "wide.mp4",
        "fate": "film dropped",
        "clips": 0,
        "seconds": 2.0,
        "reason": "aspect_ratio: aspect_ratio 4 > 2.5",
    }
    assert (page["film"], page["fate"], page["clips"], page["seconds"]) == ("page.mp4", "film error", 0, None)
    assert page["reason"].startswith("index: cannot be read as a video")
    totals = vl3syn("clips", "--run", run, "--json")
    assert json.loads(totals.stdout)[-1] == {
        "fate": "film error",
        "films": 1,
        "clips": 0,
        "seconds": None,
        "unknown": 1,
    }


def test_films_that_all_fail_are_a_failure_of_the_command(tmp_path: Path, vl3syn: Call) -> None:
    """As in `vl3syn run`."""
    (tmp_path / "films").mkdir()
    path = film(tmp_path / "films/a.mp4")
    assert vl3syn("index", "--videos", tmp_path / "films", "--run", tmp_path / "run").returncode == 0
    path.write_bytes(path.read_bytes()[:-100])
    done = vl3syn("clips", "--run", tmp_path / "run")
    assert done.returncode == 1
    assert "film error" in done.stdout
    assert "scenes: the only row failed: " in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--min-score", 1, "min_score: Input should be greater than or equal to 2"),
        ("--snap", "keys", "snap: Input should be 'none' or 'key'"),
        ("--min-seconds", -1, "min_seconds"),
    ],
)
def test_bad_setting_is_refused_before_any_work(
    tmp_path: Path, vl3syn: Call, option: str, value: object, problem: str
) -> None:
    (tmp_path / "films").mkdir()
    film(tmp_path / "films/a.mp4")
    run = tmp_path / "run"
    store_run(run, {"pool": {"videos": str(tmp_path / "films")}, "stages": []}, {})
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    done = vl3syn("clips", "--run", run, option, value)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert problem in done.stderr
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
