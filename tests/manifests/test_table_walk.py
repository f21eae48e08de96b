"""A table is read part by part: its current rows, each once, also while it is compacted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa

from manifests.compaction import compact, sweep
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.table_walk import walk
from manifests.tables import Table


def of_jobs(folder: Path) -> Table:
    table = Table(Folder.at(folder), table_schema(pa.schema([column("text", pa.string(), "")])))
    for job, ids in enumerate(([1, 2, 3], [3, 4, 5], [1, 5, 6])):
        for part in (ids[:2], ids[2:]):
            rows = {"id": part, "text": [f"{id_} by {job}" for id_ in part], "error": pa.nulls(len(part), pa.string())}
            table.append(pa.table({**rows, "retry": [False] * len(part)}), f"{job + 1:06d}-{job:08x}", {})
    return table


CURRENT = {1: "1 by 2", 2: "2 by 0", 3: "3 by 1", 4: "4 by 1", 5: "5 by 2", 6: "6 by 2"}


def test_walk_yields_the_newest_row_of_each_id_once(tmp_path: Path) -> None:
    table = of_jobs(tmp_path)
    names, parts = walk(table, ["id", "text"])
    rows = [(names[number], row) for number, part in parts for row in part.to_pylist()]
    assert sorted((row["id"], row["text"]) for _, row in rows) == sorted(CURRENT.items())
    assert all(int(name.split("-")[1]) - 1 == int(row["text"][-1]) for name, row in rows)


def test_walk_during_a_compaction_yields_the_same_rows(tmp_path: Path) -> None:
    table = of_jobs(tmp_path)
    names, parts = walk(table, ["id", "text"])
    read = [next(parts)]
    compact(table)
    for file in tmp_path.iterdir():
        os.utime(file, (time.time() - 7200,) * 2)
    assert sweep(table) == 6
    read += parts
    assert sorted((row["id"], row["text"]) for _, part in read for row in part.to_pylist()) == sorted(CURRENT.items())
    again, after = walk(table, ["id", "text"])
    assert names == again
    assert dict(after) == dict(read)
