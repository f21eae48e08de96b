"""`vl3syn review`: a page, and marks that come back as columns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests import Run, open_run
from manifests.review_marks import FORM
from tests.stored_facts import store_run

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, make_images: Callable[..., Path]) -> Run:
    pool = make_images(tmp_path / "pool", 6)
    shapes = {f"{n:06d}.jpg": {"aspect_ratio": 1.0, "side": 20, "pixels": 400} for n in range(6)}
    stages = [{"stage": "aspect_ratio"}]
    recipe = {"name": "t", "pool": {"images": str(pool)}, "stages": stages}
    return store_run(tmp_path / "run", recipe, {"aspect_ratio": shapes})


def marks(path: Path, given: dict[int, str], reviewer: str = "a", note: str = "") -> Path:
    rows = [{"id": str(id_), "mark": mark, "note": note} for id_, mark in given.items()]
    path.write_text(json.dumps({"form": FORM, "reviewer": reviewer, "saved": "2026", "rows": 6, "marks": rows}))
    return path


def columns(run: Run) -> dict[int, tuple[Any, ...]]:
    rows = open_run(run.url).manifest(["id", "status", "review_wrong", "review_good", "review_note"]).collect()
    return {row[0]: row[1:] for row in rows.iter_rows()}


def test_marks_are_columns_which_rules_and_look_read(tmp_path: Path, run: Run, vl3syn: Vl3syn) -> None:
    ids = sorted(run.verdict().alive["id"])
    first = marks(tmp_path / "a.json", {ids[0]: "wrong", ids[1]: "good"}, note="a hat")
    second = marks(tmp_path / "b.json", {ids[0]: "wrong"}, "b")
    done = vl3syn("review", run.url, "--marks", first, "--marks", second, "--json")
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert (read["images"], read["reviewers"], read["pairs"], read["agreeing"]) == (2, 2, 1, 1)
    assert read["shares"]["wrong"]["share"] == 0.5
    expected = {id_: ("kept", 0, 0, None) for id_ in ids}
    expected |= {ids[0]: ("kept", 2, 0, "a hat"), ids[1]: ("kept", 0, 1, "a hat")}
    assert columns(run) == expected
    seen = json.loads(vl3syn("look", run.url, "--where", "review_wrong > 0", "--json").stdout)
    assert [image["id"] for image in seen["images"]] == [ids[0]]
    recipe = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    recipe["stages"][1]["keep"] = {"max_review_wrong": 0}
    (tmp_path / "run/recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert sorted(open_run(run.url).verdict().alive["id"]) == ids[1:]


def test_marks_that_are_read_again_count_once(tmp_path: Path, run: Run, vl3syn: Vl3syn) -> None:
    ids = sorted(run.verdict().alive["id"])
    first = marks(tmp_path / "a.json", {ids[0]: "wrong"})
    for _ in range(2):
        assert vl3syn("review", run.url, "--marks", first).returncode == 0
    second = marks(tmp_path / "b.json", {ids[0]: "wrong"}, "b")
    done = vl3syn("review", run.url, "--marks", second)
    assert columns(run)[ids[0]][1] == 2
    assert "1 images marked by 2 people" in done.stdout
    assert "same mark in 1 of 1 (100.0%)" in done.stderr


def test_marks_of_another_run_are_refused(tmp_path: Path, run: Run, vl3syn: Vl3syn) -> None:
    done = vl3syn("review", run.url, "--marks", marks(tmp_path / "a.json", {1: "good"}))
    assert (done.returncode, done.stdout) == (1, "")
    assert "1 marked images are not in" in done.stderr
    assert not (tmp_path / "run/review").exists()


def test_publication_that_the_user_names_must_be_one(tmp_path: Path, run: Run, vl3syn: Vl3syn) -> None:
    done = vl3syn("review", run.url, "--published", tmp_path / "typo")
    assert (done.returncode, done.stdout) == (1, "")
    assert "typo: nothing is published there" in done.stderr
    assert not (tmp_path / "run/review.html").exists()


def test_file_without_marks_is_refused(tmp_path: Path, run: Run, vl3syn: Vl3syn) -> None:
    done = vl3syn("review", run.url, "--marks", marks(tmp_path / "a.json", {}))
    assert done.returncode == 1
    assert "a.json: has no marks: mark images on the page, and save again" in done.stderr
