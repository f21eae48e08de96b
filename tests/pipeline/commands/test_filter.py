"""`vl3syn filter NAME`: a filter's command follows from its class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from manifests import open_run

pytestmark = pytest.mark.usefixtures("here")
Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def indexed(tmp_path: Path, vl3syn: Command) -> Path:
    """A run of a grey and of a striped image."""
    pool = tmp_path / "pool"
    pool.mkdir()
    Image.new("RGB", (64, 64), "grey").save(pool / "grey.png")
    stripes = Image.new("RGB", (64, 64), "white")
    for x in range(4, 64, 8):
        stripes.paste("black", (x, 0, x + 1, 64))
    stripes.save(pool / "stripes.png")
    assert vl3syn("index", "--images", pool, "--run", tmp_path / "run").returncode == 0
    return tmp_path / "run"


def kept(run: Path) -> set[str]:
    manifest = open_run(run).manifest().collect()
    return set(manifest.filter(manifest["status"] == "kept")["key"])


def test_filter_by_path_run_twice_sets_its_rule_and_setting(
    indexed: Path, vl3syn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples/my_filter")
    done = vl3syn("filter", "edges:Edges", "--run", indexed, "--json")
    assert json.loads(done.stdout)["jobs"][0]["computed"] == 2, done.stderr
    assert kept(indexed) == {"grey.png", "stripes.png"}
    done = vl3syn("filter", "edges:Edges", "--run", indexed, "--min", "0.1", "--json")
    assert json.loads(done.stdout)["jobs"][0]["computed"] == 0, done.stderr
    assert kept(indexed) == {"stripes.png"}
    done = vl3syn("filter", "edges:Edges", "--run", indexed, "--threshold", "255", "--json")
    assert json.loads(done.stdout)["jobs"][0]["computed"] == 2, done.stderr
    (stage,) = open_run(indexed).recipe["stages"]
    assert (stage["stage"], stage["class"], stage["threshold"]) == ("edges", "edges:Edges", 255)
    assert stage["keep"] == {"min_edges": 0.1}


def test_rule_on_a_later_column_has_its_own_option(indexed: Path, vl3syn: Command) -> None:
    done = vl3syn("filter", "quality", "--run", indexed, "--min-contrast", "0.1")
    assert done.returncode == 0, done.stderr
    assert kept(indexed) == {"stripes.png"}


def test_motion_is_measured_of_clips_alone(indexed: Path, vl3syn: Command) -> None:
    before = open_run(indexed).recipe
    done = vl3syn("filter", "motion", "--run", indexed, "--min", "2", "--max-still", "0.5")
    assert done.returncode == 1
    assert "reads films, and the pool has images: give a pool of films" in done.stderr
    assert open_run(indexed).recipe == before
    options = vl3syn("filter", "frames", "--help").stdout
    assert "--min-kept-share" in options
    assert "Keep rows with motion at least this" in options


def test_help_lists_filters_and_describes_options(vl3syn: Command) -> None:
    listed = vl3syn("filter", "--help").stdout
    assert all(f" {name} " in listed for name in ("aesthetic", "aspect-ratio", "coyo", "nsfw", "quality", "similarity"))
    options = vl3syn("filter", "aspect-ratio", "--help").stdout
    assert "Keep rows with side at least this (Shorter side, in pixels)" in options


def test_unknown_filter_is_wrong_usage(indexed: Path, vl3syn: Command) -> None:
    done = vl3syn("filter", "qualty", "--run", indexed)
    assert done.returncode == 2
    assert "No such command 'qualty'" in done.stderr
