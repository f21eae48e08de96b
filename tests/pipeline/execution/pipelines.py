"""An image pipeline in the test's own process, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from core.stages import ImageFacts, ImageStage
from manifests.journal import Journal
from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.content_check import ContentCheck
from pipeline.execution.image_pipeline import ImagePipeline
from pipeline.execution.inputs import Inputs
from pipeline.execution.part_writer import Store
from pipeline.execution.stage_task import StageTask
from pipeline.pools import pool_of
from pipeline.pools.reader import Images


def compute_images(
    folder: Path,
    stage: ImageStage,
    facts: ImageFacts,
    names: Sequence[str],
    *,
    batch_size: int = 1,
    first_errors: int = 0,
) -> pa.Table:
    """Send images of the folder `pool` through a pipeline; return the rows, sorted by id: 0, 1, … in order of `names`.

    A journaled stage has its journal in the folder `table`.
    """
    pool = folder / "pool"
    rows = pa.table(
        {
            "id": pa.array(range(len(names)), pa.int64()),
            "shard": names,
            "key": names,
            "offset": pa.array([0] * len(names), pa.int64()),
            "bytes": pa.nulls(len(names), pa.int64()),
            "seen_bytes": pa.nulls(len(names), pa.int64()),
        }
    )
    table = Table(Folder.at(folder / "table"), table_schema(stage.writes).remove_metadata())
    store = Store(table, table.next_writer(), {})
    inputs = Inputs(images=Images(pool_of(images=str(pool)), Folder.at(pool)))
    task = StageTask(stage=stage, name=stage.name, inputs=inputs, batch_size=batch_size, store=store, contents=store)
    pipeline = ImagePipeline(task, facts, threads=2, seconds=60, first_errors=first_errors)
    journal = Journal(table, rows["id"], {}) if stage.journaled else None
    computed, busy = pipeline.compute(rows, ContentCheck(store, rows, journaled=False), journal)
    assert busy >= 0
    return computed.sort_by("id")


def compute_columns(folder: Path, stage: ImageStage, facts: ImageFacts, rows: pa.Table) -> pa.Table:
    """Send rows through the pipeline of a stage that reads only columns; return its rows, sorted by id.

    A journaled stage has its journal in the folder `table`.
    """
    table = Table(Folder.at(folder / "table"), table_schema(stage.writes).remove_metadata())
    store = Store(table, table.next_writer(), {})
    task = StageTask(stage=stage, name=stage.name, inputs=Inputs(), batch_size=stage.batch_size or 1, store=store)
    pipeline = ImagePipeline(task, facts, threads=2, seconds=60, first_errors=0)
    computed, _ = pipeline.compute(rows, None, Journal(table, rows["id"], {}) if stage.journaled else None)
    return computed.sort_by("id")
