"""Runs on one Ray: what is computed, what is not computed again, and what is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pytest

from core.errors import UserError
from core.stages import LoadedStage
from manifests import Run, funnel, open_run
from manifests.schemas import column
from manifests.storage import Folder
from pipeline.execution.index import unread
from pipeline.execution.job_result import JobResult
from pipeline.stages.registry import stage_class
from tests.runs import run, run_stages_on_ray

pytestmark = pytest.mark.usefixtures("engine")
MakeImages = Callable[..., Path]


def recipe_for(pool: object, *stages: dict[str, Any]) -> dict[str, Any]:
    return {"name": "t", "pool": pool if isinstance(pool, dict) else {"images": str(pool)}, "stages": list(stages)}


def aspect(**keep: float) -> dict[str, Any]:
    return {"stage": "aspect_ratio", "keep": keep}


def test_second_run_computes_only_new_images(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 120), tmp_path / "run"
    _, jobs = run(recipe_for(pool, aspect(max=1.5)), url)
    assert (jobs["index"].computed, jobs["aspect_ratio"].computed) == (120, 120)
    _, jobs = run(recipe_for(pool, aspect(max=1.5)), url)
    assert (jobs["index"].computed, jobs["aspect_ratio"].computed) == (0, 0)
    make_images(pool, 50, start=120)
    opened, jobs = run(recipe_for(pool, aspect(max=1.5)), url)
    assert (jobs["index"].computed, jobs["aspect_ratio"].computed) == (50, 50)
    assert jobs["index"].stored == 120
    assert opened.manifest().collect().height == 170


@pytest.mark.usefixtures("here")
def test_looser_rule_computes_only_the_newly_admitted_rows(
    tmp_path: Path, make_images: MakeImages, own_stages: None
) -> None:
    """The second stage sees only what the first rule lets through."""
    pool, url = make_images(tmp_path / "pool", 150), tmp_path / "run"
    second = {"stage": "brightness", "keep": {"min": 3}}

    def at(ratio: float, **settings: object) -> tuple[Run, dict[str, JobResult]]:
        return run(recipe_for(pool, aspect(max=ratio), {**second, **settings}), url)

    opened, jobs = at(1.5)
    kept = {r: ratios(opened).filter(pl.col("aspect_ratio") <= r).height for r in (1.2, 1.5, 2.0)}
    assert 0 < kept[1.2] < kept[1.5] < kept[2.0] < 150
    assert jobs["brightness"].computed == kept[1.5]

    opened, jobs = at(1.2)
    assert [j.computed for j in jobs.values()] == [0, 0, 0]
    assert funnel(opened).stages[2].seen == kept[1.2]

    opened, jobs = at(2.0)
    assert [j.computed for j in jobs.values()] == [0, 0, kept[2.0] - kept[1.5]]
    before = opened.stages[1].table.folder.path

    opened, jobs = at(2.0, gain=2.0)  # another setting: all of it anew, beside the old table
    assert jobs["brightness"].computed == kept[2.0]
    after = opened.stages[1].table.folder.path
    assert before != after
    assert list(Path(before).glob("part-*.parquet"))
    _, jobs = at(2.0)  # and back: the old facts are still there
    assert jobs["brightness"].computed == 0


@pytest.mark.usefixtures("here")
def test_only_rows_with_a_passing_error_are_retried(tmp_path: Path, make_images: MakeImages, own_stages: None) -> None:
    pool, url = make_images(tmp_path / "pool", 60), tmp_path / "run"
    recipe = recipe_for(pool, {"stage": "brightness", "flaky": str(tmp_path / "server-is-up")})
    opened, jobs = run(recipe, url)
    counted = funnel(opened).stages[1]
    assert counted.errors == 60 // 3 + 60 // 10 - 60 // 30
    assert counted.reasons == {"server": 20 - 2, "bad bytes": 6}
    (tmp_path / "server-is-up").touch()
    opened, jobs = run(recipe, url)
    assert jobs["brightness"].computed == 18
    assert funnel(opened).stages[1].reasons == {"bad bytes": 6}
    assert opened.manifest().collect().height == 60


def test_broken_stage_fails_the_job_and_keeps_stored_rows(
    tmp_path: Path, make_images: MakeImages, own_stages: None
) -> None:
    pool, url = make_images(tmp_path / "pool", 30), tmp_path / "run"
    with pytest.raises(ValueError, match=r"^no weights at /nowhere; give a path$"):
        run_stages_on_ray(recipe_for(pool, {"stage": "brightness", "weights": "/nowhere"}), url)
    assert funnel(open_run(url)).stages[1].pending == 30


def test_actor_that_does_not_fit_is_refused_with_the_resources(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 3)
    stage = {**aspect(max=2), "resources": {"num_gpus": 1, "actors": 1}}
    with pytest.raises(ValueError, match=r"aspect_ratio: an actor needs .* 1 GPU on one node, .* 0 GPU"):
        run(recipe_for(pool, stage), tmp_path / "run")


@pytest.mark.usefixtures("here")
def test_parts_have_at_most_part_rows_rows(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 300)
    stage = {**aspect(max=2), "resources": {"part_rows": 64, "batch_size": 16, "actors": 2}}
    opened, _ = run(recipe_for(pool, stage), tmp_path / "run")
    assert len(opened.stages[0].table.parts()) == 5


def test_missing_pool_is_refused_before_ray_starts(tmp_path: Path, make_images: MakeImages) -> None:
    with pytest.raises(ValueError, match="nowhere: No such file or directory"):
        run(recipe_for(tmp_path / "nowhere"), tmp_path / "run")


@pytest.mark.usefixtures("here")
def test_run_of_another_pool_is_refused(tmp_path: Path, make_images: MakeImages) -> None:
    one, two = make_images(tmp_path / "one", 3), make_images(tmp_path / "two", 3)
    run(recipe_for(one), tmp_path / "run")
    with pytest.raises(ValueError, match="choose another run directory"):
        run(recipe_for(two), tmp_path / "run")


def test_directory_with_other_files_is_refused_as_a_run(tmp_path: Path, make_images: MakeImages) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds files but no recipe\.yaml"):
        run(recipe_for(make_images(tmp_path / "pool", 3)), tmp_path)


@pytest.mark.usefixtures("here")
def test_changed_image_is_a_new_image(tmp_path: Path, make_images: MakeImages) -> None:
    """No stored fact about the old bytes meets the new ones: a download that was indexed half done, say."""
    pool, url = make_images(tmp_path / "pool", 5), tmp_path / "run"
    opened, _ = run(recipe_for(pool, aspect(max=2)), url)
    assert funnel(opened).survivors == 5
    (pool / "000002.jpg").write_bytes((pool / "000001.jpg").read_bytes()[:50])
    opened, jobs = run(recipe_for(pool, aspect(max=2)), url)
    assert (jobs["index"].computed, jobs["aspect_ratio"].computed) == (1, 0)
    assert funnel(opened).stages[0].errors == 1
    (pool / "000002.jpg").write_bytes(wide_jpeg())
    opened, jobs = run(recipe_for(pool, aspect(max=2)), url)
    assert (jobs["index"].computed, jobs["aspect_ratio"].computed) == (1, 1)
    manifest = opened.manifest().collect()
    assert manifest.height == manifest["id"].n_unique() == 5
    (changed,) = manifest.filter(pl.col("key") == "000002.jpg").to_dicts()
    assert (changed["width"], changed["aspect_ratio"], changed["status"]) == (900, 9, "dropped")


@pytest.mark.usefixtures("here")
def test_changed_tar_has_no_stale_facts(tmp_path: Path, make_images: MakeImages) -> None:
    import tarfile

    pool, url = make_images(tmp_path / "pool", 2), tmp_path / "run"

    def pack(*names: str) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name in names:
                archive.add(pool / name, name)
            archive.add(__file__, "page.jpg")

    pack("000000.jpg")
    run(recipe_for({"tars": str(tmp_path / "*.tar")}, aspect(max=2)), url)
    (pool / "000000.jpg").write_bytes(wide_jpeg())
    pack("000000.jpg", "000001.jpg", *["000001.jpg"] * 20)
    opened, _ = run(recipe_for({"tars": str(tmp_path / "*.tar")}, aspect(max=2)), url)
    (wide,) = opened.manifest().filter(pl.col("key") == "000000.jpg").collect().to_dicts()
    assert (wide["aspect_ratio"], wide["status"]) == (9, "dropped")


def test_unreadable_shard_is_retried(tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests.schemas import INDEX
    from pipeline.pools import pool_of

    pool = pool_of(images=str(make_images(tmp_path / "pool", 3)))
    listing = pool.listing()
    (tmp_path / "pool" / "000001.jpg").unlink()
    rows = pool.index(listing.root, listing.shards)
    assert rows.schema.equals(INDEX)
    assert rows["retry"].to_pylist() == [False, True, False]
    assert rows["key"].to_pylist()[1] == "000001.jpg"
    table = Run(str(tmp_path), Folder.at(tmp_path / "run"), {}).index
    table.append(rows, table.next_writer(), {})
    assert unread(table, listing, pool).shards["path"].to_pylist() == ["000001.jpg"]


@pytest.mark.usefixtures("here")
def test_images_that_vanish_keep_their_rows(tmp_path: Path, make_images: MakeImages) -> None:
    pool, url = make_images(tmp_path / "pool", 5), tmp_path / "run"
    run(recipe_for(pool), url)
    (pool / "000003.jpg").unlink()
    opened, jobs = run(recipe_for(pool), url)
    assert jobs["index"].computed == 0
    assert opened.manifest().collect().height == 5


@pytest.mark.usefixtures("here")
def test_duplicate_ids_are_refused(tmp_path: Path, make_images: MakeImages) -> None:
    import pyarrow.parquet as pq

    image = (make_images(tmp_path / "pool", 1) / "000000.jpg").read_bytes()
    for shard, ids in (("a", [1, 2]), ("b", [2, 3])):
        pq.write_table(pa.table({"jpg": [image] * 2, "number": ids}), tmp_path / f"{shard}.parquet")
    pool = {"parquet": str(tmp_path / "*.parquet"), "id": "number"}
    for _ in range(2):  # the second finds everything stored, and must not take it for good
        with pytest.raises(ValueError, match=r"2 by (a\.parquet 1 and b\.parquet 0|b\.parquet 0 and a\.parquet 1)"):
            run(recipe_for(pool, aspect(max=2)), tmp_path / "run")


@pytest.mark.usefixtures("here")
def test_run_inside_its_pool_does_not_index_its_parts(tmp_path: Path, make_images: MakeImages) -> None:
    import pyarrow.parquet as pq

    image = (make_images(tmp_path / "images", 1) / "000000.jpg").read_bytes()
    pq.write_table(pa.table({"jpg": [image]}), tmp_path / "a.parquet")
    pool = {"parquet": str(tmp_path)}
    for _ in range(2):
        opened, _ = run(recipe_for(pool, aspect(max=2)), tmp_path / "run")
        assert funnel(opened).rows == 1


@pytest.mark.usefixtures("here")
def test_stages_after_a_stage_without_rows_compute_nothing(
    tmp_path: Path, make_images: MakeImages, own_stages: None
) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "broken.jpg").touch()
    stage = {"stage": "brightness", "keep": {"min": 1}}
    opened, jobs = run(recipe_for(tmp_path / "pool", aspect(max=2), stage), tmp_path / "run")
    assert [job.computed for job in jobs.values()] == [1, 0, 0]
    assert funnel(opened).survivors == 0


def test_missing_file_of_a_stage_is_an_error_and_ends_the_run(
    tmp_path: Path, make_images: MakeImages, own_stages: None
) -> None:
    pool = make_images(tmp_path / "pool", 3)
    with pytest.raises(UserError, match=r"^\[Errno 2\] No such file or directory: '/.*/no/log'$"):
        run_stages_on_ray(recipe_for(pool, {"stage": "counted", "log": str(tmp_path / "no/log")}), tmp_path / "run")


@pytest.mark.thorough
def test_killed_worker_loses_only_its_current_part(tmp_path: Path, make_images: MakeImages, own_stages: None) -> None:
    """Counted by the stage itself: every row it computes is a line in a log."""
    pool, log = make_images(tmp_path / "pool", 400), tmp_path / "log"
    stage = {"stage": "counted", "log": str(log), "resources": {"batch_size": 10, "part_rows": 40, "actors": 2}}

    def kill_one() -> None:
        while not log.exists() or len(log.read_text().split()) < 200:
            time.sleep(0.01)
        os.kill(int(log.read_text().split()[-1].split(":")[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    opened, jobs = run_stages_on_ray(recipe_for(pool, stage), tmp_path / "run")
    killer.join()
    lines = [line.split(":") for line in log.read_text().split()]
    # Besides the two: the one that takes the place of the killed, and two of the next round, if rows are left for them.
    assert 2 <= len({pid for pid, _ in lines}) <= 5
    computed = [key for _, key in lines]
    assert len(set(computed)) == 400 == funnel(opened).survivors == jobs["counted"].computed
    assert len(computed) - 400 <= 40


def wide_jpeg() -> bytes:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (900, 100)).save(data, "JPEG")
    return data.getvalue()


def ratios(opened: Run) -> pl.DataFrame:
    return opened.manifest().select("aspect_ratio").collect()


@pytest.fixture
def own_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of this module may name the stages below."""
    stages = {"brightness": Brightness, "counted": Counted}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: stages.get(name) or stage_class(name))


class Counted(LoadedStage):
    """A slow stage that writes down what it computes, and in which process."""

    name: ClassVar = "counted"
    reads: ClassVar = ("key",)
    writes: ClassVar = pa.schema([column("length", pa.int32(), "of the key", 0)])
    log: str

    def load(self) -> Any:
        return self

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(0.02)
        keys = batch["key"].to_pylist()
        with Path(self.log).open("a") as log:
            log.write("".join(f"{os.getpid()}:{key}\n" for key in keys))
        return pa.table({"length": pa.array([len(key) for key in keys], pa.int32())})


class Brightness(LoadedStage):
    """A stage with settings, errors of both kinds, and weights that may be missing."""

    name: ClassVar = "brightness"
    reads: ClassVar = ("width", "key")
    writes: ClassVar = pa.schema([column("brightness", pa.float32(), "made up", 0)])
    gain: float = 1.0
    flaky: str | None = None
    weights: str | None = None

    def load(self) -> Any:
        if self.weights:
            raise UserError(f"no weights at {self.weights}; give a path")
        return self

    def __call__(self, batch: pa.Table) -> pa.Table:
        errors: list[str | None] = []
        for key in batch["key"].to_pylist():
            number = int(key[:6])
            down = self.flaky and number % 3 == 0 and not Path(self.flaky).exists()
            bad = self.flaky and number % 10 == 0
            errors.append("bad bytes: on purpose" if bad else "server: did not answer" if down else None)
        scores = [None if e else w * self.gain for e, w in zip(errors, batch["width"].to_pylist(), strict=True)]
        return pa.table(
            {
                "brightness": pa.array(scores, pa.float32()),
                "error": pa.array(errors, pa.string()),
                "retry": [bool(e and e.startswith("server")) for e in errors],
            }
        )
