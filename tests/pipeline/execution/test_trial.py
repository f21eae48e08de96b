"""A sample that runs through the stages: what it measures, what it extrapolates, and that it leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.execution.preview import preview
from pipeline.execution.trial import Trial, try_out
from pipeline.recipe import parse_recipe
from tests.runs import run_here

pytestmark = pytest.mark.usefixtures("here")
MakeImages = Callable[..., Path]

ASPECT = {"stage": "aspect_ratio", "keep": {"max": 1.3}}
HASHES = {"stage": "hashes"}


def _trial(pool: dict[str, str], url: Path | str, *stages: dict[str, Any], images: int = 64) -> Trial:
    recipe = parse_recipe({"name": "t", "pool": pool, "stages": list(stages)}, "t")
    plan, listing = preview(recipe, str(url))
    return try_out(recipe, plan, listing, str(url), images)


def test_sample_measures_every_stage_and_leaves_nothing(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 300)
    trial = _trial({"images": str(pool)}, tmp_path / "run", ASPECT, HASHES)
    index, aspect, hashes = trial.stages
    assert (trial.images, trial.stopped, index.stage, index.run_rows) == (64, None, "index", (300, 300))
    assert (aspect.rows, aspect.reached, aspect.run_rows) == (48, 64, (300, 300)), "a quarter, then the rest"
    assert hashes.rows == 48, "dropped rows are measured too"
    passing = sum(max(20 + n % 37, 20 + n % 23) <= 1.3 * min(20 + n % 37, 20 + n % 23) for n in range(300))
    assert hashes.run_rows is not None
    assert 0 < hashes.run_rows[0] <= passing <= hashes.run_rows[1] < 300
    assert hashes.reached < 64
    for stage in trial.stages[1:]:
        assert 0 <= stage.row_seconds[0] <= stage.row_seconds[1]
        assert stage.row_bytes > 0
    assert trial.run_seconds is not None
    assert trial.run_seconds[0] <= trial.run_seconds[1]
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_images_of_one_tar_are_all_measured(tmp_path: Path, make_images: MakeImages) -> None:
    """The index keeps the newest job's rows of a shard: two jobs would hide the first quarter."""
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(make_images(tmp_path / "pool", 20), "pool")
    trial = _trial({"tars": f"{tmp_path}/0.tar"}, tmp_path / "run", ASPECT)
    assert (trial.images, trial.stages[1].rows, trial.stages[1].reached) == (20, 15, 20)


def test_folders_above_a_trial_are_deleted_if_it_made_them(tmp_path: Path, make_images: MakeImages) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 4))}
    (tmp_path / "mine").mkdir()
    _trial(pool, tmp_path / "mine" / "new" / "run", ASPECT)
    _trial(pool, tmp_path / "new" / "run", ASPECT)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()) == [
        "mine",
        "pool",
    ]


def test_sigterm_ends_a_trial_and_leaves_nothing(tmp_path: Path, make_images: MakeImages) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"pool: {{images: {make_images(tmp_path / 'pool', 8)}}}\nstages: [{{stage: hashes}}]\n")
    command = [sys.executable, "-m", "pipeline", "run", recipe, "--run", tmp_path / "run", "--dry-run", "--measure"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("run.trial-*/*")):
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool", "r.yaml"]


def test_time_of_the_index_counts_new_shards_of_a_run(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 8), tmp_path / "run"
    run_here({"name": "t", "pool": {"images": str(pool)}, "stages": [ASPECT]}, url)
    assert [stage.stage for stage in _trial({"images": str(pool)}, url, ASPECT).stages] == ["aspect_ratio"]
    make_images(pool, 4, start=8)
    index = _trial({"images": str(pool)}, url, ASPECT).stages[0]
    assert (index.stage, index.run_rows) == ("index", (4, 4))
    assert index.run_seconds is not None
    assert index.run_seconds[1] > 0


def test_errors_are_of_the_rows_that_are_counted(tmp_path: Path, make_images: MakeImages) -> None:
    """Each URL of a private address is an error: both jobs together have more than the longer one has rows."""
    (tmp_path / "l.csv").write_text("url\n" + "".join(f"http://127.0.0.1:9/{n}.jpg\n" for n in range(8)))
    download = _trial({"urls": f"{tmp_path}/l.csv"}, tmp_path / "run", {"stage": "download"}).stages[1]
    assert (download.rows, download.errors) == (6, 6)


def test_trial_beside_a_run_in_a_bucket_is_deleted(tmp_path: Path, make_images: MakeImages, bucket: str) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 8))}
    trial = _trial(pool, f"{bucket}/trial/run", ASPECT)
    assert (trial.stages[1].rows, trial.stages[1].errors) == (6, 0)
    assert Folder.at(f"{bucket}/trial").files(recursive=True) == []


def test_stage_that_cannot_run_ends_the_trial_with_its_reason(tmp_path: Path, make_images: MakeImages) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 8))}
    blip = {"stage": "coarse_caption", "model": str(tmp_path / "none")}
    trial = _trial(pool, tmp_path / "run", ASPECT, blip, HASHES)
    assert [stage.stage for stage in trial.stages] == ["index", "aspect_ratio"]
    assert trial.stopped is not None
    assert trial.stopped.startswith("coarse_caption: ")
    assert trial.run_seconds is None
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_balance_bounds_the_rows_of_later_stages(tmp_path: Path, make_images: MakeImages) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 200))}
    balanced = {"stage": "aspect_ratio", "keep": {"total_format": 30}}
    grouped = {"stage": "aspect_ratio", "keep": {"per_group_format": 1000}}
    trial = _trial(pool, tmp_path / "run", balanced, HASHES)
    assert trial.stages[2].run_rows == (30, 30)
    trial = _trial(pool, tmp_path / "run", grouped, HASHES)
    assert trial.stages[2].run_rows == (0, 200), "a sample does not show how large the groups are"


def test_top_counts_once_in_the_rows_of_later_stages(tmp_path: Path, make_images: MakeImages) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 200))}
    trial = _trial(pool, tmp_path / "run", {"stage": "aspect_ratio", "keep": {"top": 0.5}}, HASHES)
    assert trial.stages[2].run_rows is not None
    assert trial.stages[2].run_rows[0] > 60
    assert trial.stages[2].run_rows[1] == 100


def test_sample_without_a_usable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "page.jpg").write_text("<html>")
    with pytest.raises(UserError, match="no image of the sample can be used: not an image: HTML"):
        _trial({"images": f"{tmp_path}/pool"}, tmp_path / "run", ASPECT)
