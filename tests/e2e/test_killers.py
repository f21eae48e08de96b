"""A row that kills its worker, by a real SIGKILL: it becomes an error, all other rows are computed, the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from core.stages import GroupedStage, ImageFacts, ImageStage, LoadedStage, Stage
from manifests import open_run
from manifests.schemas import column
from pipeline.execution.ray_job import map_blocks, run_job
from pipeline.execution.receipts import receipt, reported
from pipeline.pools.images import Failure
from pipeline.recipe import parse_recipe
from pipeline.stages.registry import stage_class
from tests.runs import run_here, run_stages_on_ray

MakeImages = Callable[..., Path]
KILLER = "000005.jpg"
KILLED = "killed its worker: its process ended at each of 2 tries alone, as in a crash of a decoder"

# Pillow in every process of the command's: as if libjpeg crashed over a file that says so in its comment.
SITE = """
import os, signal
from PIL import JpegImagePlugin

def deadly(method, when):
    def call(self, *arguments):
        result = method(self, *arguments)
        if self.info.get("comment") == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

JPEG = JpegImagePlugin.JpegImageFile
JPEG._open = deadly(JPEG._open, b"kill at open")
JPEG.load = deadly(JPEG.load, b"kill at load")
"""


def save_deadly(path: Path, comment: str) -> None:
    Image.new("RGB", (50, 40), (200, 30, 90)).save(path, comment=comment.encode())


@pytest.fixture
def deadly_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.thorough
@pytest.mark.timeout(600)  # each killer costs several starts of workers, on a busy machine minutes
@pytest.mark.usefixtures("deadly_pillow")
def test_run_command_loses_only_the_rows_that_kill_a_worker(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pool = make_images(tmp_path / "pool", 14)
    save_deadly(pool / "header.jpg", "kill at open")
    save_deadly(pool / "pixels.jpg", "kill at load")
    (tmp_path / "recipe.yaml").write_text(f"pool: {{images: {pool}}}\nstages:\n  - {{stage: hashes}}\n")
    done = vl3syn_process("run", tmp_path / "recipe.yaml", "--run", tmp_path / "run", "--json", timeout=500)
    assert done.returncode == 0, done.stderr
    jobs = {job["stage"]: job for job in json.loads(done.stdout)["jobs"]}
    assert (jobs["index"]["computed"], jobs["index"]["errors"]) == (16, 1)
    assert (jobs["hashes"]["computed"], jobs["hashes"]["errors"]) == (15, 1)
    manifest = open_run(tmp_path / "run").manifest().collect()
    errors = manifest.filter(pl.col("status") == "error").sort("key")
    assert errors["key"].to_list() == ["header.jpg", "pixels.jpg"]
    assert errors["drop_stage"].to_list() == ["index", "hashes"]
    assert errors["drop_reason"].to_list() == [KILLED, KILLED]
    good = manifest.filter(pl.col("status") == "kept")
    assert good["content_hash"].null_count() == 0
    assert good.height == 14
    _, again = run_here({"pool": {"images": str(pool)}, "stages": [{"stage": "hashes"}]}, tmp_path / "run")
    assert [job.computed for job in again.values()] == [0, 0], "a killer is not tried for ever"


@pytest.mark.usefixtures("own_stages")
def test_run_command_ends_when_an_image_decodes_forever(
    tmp_path: Path, make_images: MakeImages, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pool = make_images(tmp_path / "pool", 10, start=10)
    for name in ("000003b.jpg", "000007b.jpg"):  # more than there are threads
        save_deadly(pool / name, "sleep")
    resources = "{image_seconds: 1, threads: 1, actors: 1}"
    (tmp_path / "recipe.yaml").write_text(
        f"pool: {{images: {pool}}}\n"
        f"stages:\n  - {{stage: deadly_caption, log: {tmp_path / 'log'}, resources: {resources}}}\n"
    )
    done = vl3syn("run", tmp_path / "recipe.yaml", "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"][1]["errors"] == 2
    opened = open_run(tmp_path / "run")
    failed = opened.facts("deadly_caption").filter(pl.col("error").is_not_null()).select("error", "retry").collect()
    assert failed.rows() == [("too slow: not decoded within 1 s", True)] * 2
    manifest = opened.manifest().collect()
    assert manifest.filter(pl.col("status") == "error")["key"].to_list() == ["000003b.jpg", "000007b.jpg"]
    assert manifest.filter(pl.col("status") == "kept")["caption"].null_count() == 0


def test_time_limit_of_a_row_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    pool = {"images": str(tmp_path / "pool")}
    entries: list[dict[str, Any]] = [{"stage": "hashes"}, {"stage": "hashes", "resources": {"image_seconds": 5}}]
    default, changed = (parse_recipe({"pool": pool, "stages": [entry]}, "test") for entry in entries)
    assert default.steps[0].table == changed.steps[0].table
    assert "resources" not in default.resolved()["stages"][0]


@pytest.mark.slow  # the first test kills the same ways: tasks in the index, actors in its stage
@pytest.mark.usefixtures("engine", "own_stages")
@pytest.mark.parametrize(("name", "rows"), [("deadly", 16), ("deadly_actor", 300)])
def test_row_that_kills_is_isolated_in_tasks_and_actors(
    tmp_path: Path, make_images: MakeImages, name: str, rows: int
) -> None:
    pool = make_images(tmp_path / "pool", rows)
    stage = {"stage": name, "resources": {"batch_size": 4}}
    opened, jobs = run_stages_on_ray({"pool": {"images": str(pool)}, "stages": [stage]}, tmp_path / "run")
    assert (jobs[name].computed, jobs[name].errors) == (rows, 1)
    manifest = opened.manifest().collect()
    assert manifest.filter(pl.col("status") == "error")["key"].to_list() == [KILLER]
    assert manifest.filter(pl.col("key") != KILLER)["length"].to_list() == [10] * (rows - 1)
    stored = opened.facts(name).collect()
    assert stored.filter(pl.col("error").is_not_null()).select("error", "retry").rows() == [(KILLED, False)]


@pytest.mark.thorough
@pytest.mark.usefixtures("engine", "own_stages")
def test_group_with_a_killer_stays_whole_and_others_are_computed(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 12)
    stages = [{"stage": "sixes"}, {"stage": "deadly_group"}]
    opened, jobs = run_stages_on_ray({"pool": {"images": str(pool)}, "stages": stages}, tmp_path / "run")
    assert (jobs["deadly_group"].computed, jobs["deadly_group"].errors) == (12, 6)
    manifest = opened.manifest().collect().sort("key")
    assert manifest["status"].to_list() == ["error"] * 6 + ["kept"] * 6
    assert manifest["members"].to_list() == [None] * 6 + [6] * 6, "each saw its whole group"


@pytest.mark.thorough
@pytest.mark.usefixtures("engine", "own_stages")
def test_journaled_stage_computes_no_row_twice_after_a_kill(tmp_path: Path, make_images: MakeImages) -> None:
    pool, log = make_images(tmp_path / "pool", 7), tmp_path / "log"
    stage = {"stage": "deadly_caption", "log": str(log), "resources": {"actors": 1, "batch_size": 1}}
    opened, jobs = run_stages_on_ray({"pool": {"images": str(pool)}, "stages": [stage]}, tmp_path / "run")
    assert (jobs["deadly_caption"].computed, jobs["deadly_caption"].errors) == (7, 1)
    paid = Counter(log.read_text().split())
    assert paid.pop(KILLER) >= 2
    assert sorted(paid.values()) == [1] * 6
    assert opened.manifest().filter(pl.col("status") == "error").collect()["key"].to_list() == [KILLER]
    assert not list((tmp_path / "run").rglob("journal-*")), "what was in journals is in parts"


@pytest.mark.slow
@pytest.mark.usefixtures("engine", "own_stages")
def test_stage_that_kills_on_every_row_ends(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 3, start=1000)
    _, jobs = run_stages_on_ray({"pool": {"images": str(pool)}, "stages": [{"stage": "deadly"}]}, tmp_path / "run")
    assert (jobs["deadly"].computed, jobs["deadly"].errors) == (3, 3)


@pytest.mark.thorough
@pytest.mark.usefixtures("engine")
def test_run_job_when_rows_are_salvaged_counts_only_killers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.execution.ray_job._MOST_FAILED", 1)

    def job(dataset: Any, alone: bool = False) -> Any:
        return map_blocks(dataset, reported, fn_kwargs={"call": _store_all_but_3})

    stats = run_job([pa.table({"number": list(range(6))})], job, SalvagingRescue())
    assert (stats.rows, stats.errors) == (5 + 1 + 4, 1), "5 were computed, 1 failed, 4 were salvaged, one per round"


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_block_that_loses_its_node_each_time_ends_as_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    def one_more_lost() -> tuple[set[str], set[str]]:
        lost.append(str(len(lost)))
        return set(lost), {"head"}

    monkeypatch.setattr("pipeline.execution.losses._nodes", one_more_lost)

    def job(dataset: Any, alone: bool = False) -> Any:
        return map_blocks(dataset, reported, fn_kwargs={"call": _store_all_but_3})

    stats = run_job([pa.table({"number": [3]}), pa.table({"number": [4]})], job, FailingRescue())
    assert (stats.rows, stats.errors) == (2, 1)


@pytest.fixture
def own_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of this module may name the stages below."""
    stages = {kind.name: kind for kind in (Deadly, DeadlyActor, Sixes, DeadlyGroup, DeadlyCaption)}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: stages.get(name) or stage_class(name))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _store_all_but_3(block: pa.Table) -> pa.Table:
    if 3 in block["number"].to_pylist():
        die()
    return receipt(block.num_rows, 0)


class FailingRescue:
    """A rescue that finds nothing stored."""

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        return lost, []

    def divide(self, block: pa.Table) -> list[pa.Table]:
        return [block.slice(row, 1) for row in range(block.num_rows)]

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        return receipt(block.num_rows, block.num_rows)


class SalvagingRescue(FailingRescue):
    """A rescue that has one more row stored each time that blocks are lost."""

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        return lost, [receipt(1, 0)]


class Deadly(Stage):
    """A stage in plain tasks that one row, or all above a thousand, kills."""

    name: ClassVar = "deadly"
    reads: ClassVar = ("key",)
    writes: ClassVar = pa.schema([column("length", pa.int32(), "of the key", 0)])

    def __call__(self, batch: pa.Table) -> pa.Table:
        keys = batch["key"].to_pylist()
        if KILLER in keys or max(keys) >= "001000":
            die()
        return pa.table({"length": pa.array([len(key) for key in keys], pa.int32())})


class DeadlyActor(Deadly, LoadedStage):
    name: ClassVar = "deadly_actor"

    def load(self) -> Any:
        return self


class Sixes(Stage):
    """Groups of six rows."""

    name: ClassVar = "sixes"
    reads: ClassVar = ("key",)
    writes: ClassVar = pa.schema([column("six", pa.int32(), "number of the group", 0)])

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table({"six": pa.array([int(key[:6]) // 6 for key in batch["key"].to_pylist()], pa.int32())})


class DeadlyGroup(GroupedStage):
    """A stage that compares rows, in tasks."""

    name: ClassVar = "deadly_group"
    group_by: ClassVar = "six"
    reads: ClassVar = ("six", "key")
    writes: ClassVar = pa.schema([column("members", pa.int32(), "rows of the group", 0)])

    def __call__(self, batch: pa.Table) -> pa.Table:
        if KILLER in batch["key"].to_pylist():
            die()
        six = batch["six"].to_pylist()
        return pa.table({"members": pa.array([Counter(six)[number] for number in six], pa.int32())})


class DeadlyCaption(ImageStage):
    """A journaled stage that reads images; it writes down each call, which costs money."""

    name: ClassVar = "deadly_caption"
    journaled: ClassVar = True
    reads: ClassVar = ("encoded", "key")
    writes: ClassVar = pa.schema([column("caption", pa.string(), "of the image")])
    log: str

    def load(self) -> Any:
        return _Captioner(self.log)


class _Captioner(ImageFacts):
    side = 1

    def __init__(self, log: str) -> None:
        self._log = Path(log)

    def prepare(self, encoded: bytes, key: str) -> tuple[int, str]:
        if b"sleep" in encoded:  # as a decoder that has no end
            time.sleep(600)
        return len(encoded), key

    def __call__(self, inputs: Sequence[tuple[int, str]]) -> pa.Table:
        with self._log.open("a") as log:
            log.write("".join(f"{key}\n" for _, key in inputs))
        if any(key == KILLER for _, key in inputs):
            die()
        return pa.table({"caption": [f"a picture of {key}" for _, key in inputs]})
