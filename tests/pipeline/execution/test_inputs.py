"""What workers read by themselves: the right row of the right part, with nulls, in the order asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from manifests.compaction import compact, sweep
from manifests.embeddings import embedding_column, from_matrix
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.inputs import Source


def test_rows_are_of_the_planned_part_after_a_compaction(tmp_path: Path) -> None:
    table = Table(Folder.at(tmp_path), table_schema(pa.schema([column("text", pa.string(), "")])))
    for job, ids in enumerate(([1, 2, 3], [3, 4, 5], [1, 5, 6])):
        rows = {"id": ids, "text": [f"{id_} by {job}" for id_ in ids], "error": pa.nulls(3, pa.string())}
        table.append(pa.table({**rows, "retry": [False] * 3}), table.next_writer(), {})
    located, names = table.locate()
    wanted = located.collect().sort("id").with_columns(pl.col("part").cast(pl.Int32)).to_arrow()
    planned = Source(table, names, {"text": "text"}, "part")
    expected = ["1 by 2", "2 by 0", "3 by 1", "4 by 1", "5 by 2", "6 by 2"]
    assert planned.read(wanted)["text"].to_pylist() == expected
    assert compact(table).files_after == 1
    for file in tmp_path.iterdir():
        os.utime(file, (time.time() - 7200,) * 2)
    assert planned.read(wanted)["text"].to_pylist() == expected
    assert sweep(table) == 3
    assert planned.read(wanted)["text"].to_pylist() == expected


def test_rows_of_many_parts_are_in_the_order_of_the_block(tmp_path: Path) -> None:
    writes = pa.schema(
        [
            embedding_column("image_embedding", 4, "made-up", ""),
            column("text", pa.string(), ""),
            column("labels", pa.list_(pa.string()), ""),
        ]
    )
    table = Table(Folder.at(tmp_path), table_schema(writes))
    dice = np.random.default_rng(0)
    vectors, _ = from_matrix(np.where(dice.random((90, 1)) < 0.2, 0, dice.normal(size=(90, 4))))  # some are null
    ids = dice.permutation(90) * 1_000_003 - 7
    texts = [None if n % 7 == 0 else f"row {n}" for n in range(90)]
    labels = [None if n % 5 == 0 else [str(n)] * (n % 3) for n in range(90)]
    whole = pa.table(
        [
            pa.array(ids),
            vectors,
            texts,
            pa.array(labels, pa.list_(pa.string())),
            pa.nulls(90, pa.string()),
            [False] * 90,
        ],
        schema=table.schema,
    )
    writer = table.next_writer()
    for start in range(0, 90, 30):
        table.append(whole.slice(start, 30), writer, {})
    names = table.parts()
    located = {table.read(name, ["id"])["id"][0].as_py(): n for n, name in enumerate(names)}
    part_of = np.array([located[int(ids[n // 30 * 30])] for n in range(90)], np.uint32)

    wanted = dice.permutation(90)[:50]
    block = pa.table({"id": ids[wanted], "part_0": part_of[wanted]})
    result = Source(table, names, {name: name for name in writes.names}, "part_0").read(block)
    assert result.to_pylist() == whole.select(writes.names).take(pa.array(wanted)).to_pylist()
    assert 0 < result["image_embedding"].null_count < 50
