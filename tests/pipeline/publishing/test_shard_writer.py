"""Shards have every column that a stage may define, wherever the tables are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pytest

from core.stages import Stage
from manifests import Run
from manifests.schemas import column
from manifests.storage import Folder
from pipeline.execution import planner
from pipeline.execution.inputs import Inputs
from pipeline.execution.planner import plan_shuffled
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.conftest import MakeImages
from tests.runs import jobs_here, run


class Numbers(Stage):
    """A stage whose columns are called as columns of the publication itself once were."""

    name: ClassVar = "numbers"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema(
        [column(name, pa.int32(), "the width", 0) for name in ("number", "position_in_shard", "part_0")]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table([batch["width"]] * 3, names=["number", "position_in_shard", "part_0"])


class Lists(Stage):
    """A stage with a column that the driver does not send."""

    name: ClassVar = "lists"
    reads: ClassVar = ("width",)
    writes: ClassVar = pa.schema([column("sizes", pa.list_(pa.int32()), "the width, twice")])

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table(
            [pa.array([[width] * 2 for width in batch["width"].to_pylist()], pa.list_(pa.int32()))], ["sizes"]
        )


def captioned(pool: Path, url: Path, stage: type[Stage]) -> Run:
    with chat_server() as server:
        caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        stages = [{"stage": f"{__name__}:{stage.__name__}"}, caption]
        opened, _ = run({"pool": {"images": str(pool)}, "stages": stages}, url)
    return opened


def published(opened: Run, out: Path) -> list[bytes]:
    publish(opened, recipe_of(opened), Publish(rows_per_shard=4), Folder.at(str(out)), str(out))
    return [shard.read_bytes() for shard in sorted(out.glob("data/*"))]


@pytest.mark.usefixtures("engine")
def test_columns_of_a_stage_with_internal_names_are_published(tmp_path: Path, make_images: MakeImages) -> None:
    with jobs_here():
        opened = captioned(make_images(tmp_path / "pool", 6), tmp_path / "run", Numbers)
    published(opened, tmp_path / "out")
    rows = pl.read_parquet(f"{tmp_path}/out/data/*.parquet")
    assert rows.height == 6
    for name in ("number", "position_in_shard", "part_0"):
        assert rows[name].to_list() == rows["width"].to_list()


@pytest.mark.usefixtures("here")
def test_shards_are_the_same_whoever_reads_the_tables(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = captioned(make_images(tmp_path / "pool", 6), tmp_path / "run", Lists)
    some_by_driver = published(opened, tmp_path / "some")
    monkeypatch.setattr(planner, "_SMALL", 0)
    assert published(opened, tmp_path / "none") == some_by_driver
    assert len(some_by_driver) == 2


@pytest.mark.usefixtures("here")
def test_workers_do_not_read_small_tables(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = captioned(make_images(tmp_path / "pool", 6), tmp_path / "run", Numbers)
    plans = []

    def planned(*args: Any) -> tuple[pl.DataFrame, Inputs]:
        plans.append(plan_shuffled(*args))
        return plans[-1]

    monkeypatch.setattr("pipeline.publishing.publish.plan_shuffled", planned)
    assert len(published(opened, tmp_path / "out")) == 2
    assert [inputs.sources for _, inputs in plans] == [[]]
