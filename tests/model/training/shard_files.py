"""Shards with the layout that `publish` gives them, without a run: by the code that writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.schemas import column
from manifests.shards import TOGETHER, conversations, shard_name, shard_schema, write_parquet
from manifests.storage import Folder

SIZE = 20_000  # bytes of an image here; nobody decodes them
GROUP = 8 * SIZE  # of a row group of eight


def image(number: int) -> bytes:
    """Of a row."""
    return np.random.default_rng(number).bytes(SIZE)


def words(use: str, number: int) -> str:
    """The caption of a row."""
    return f"{use} words about {number}"


def write(
    folder: Path,
    sizes: Sequence[Sequence[int]],
    subset: str = TOGETHER,
    uses: Sequence[str] = ("short", "detailed"),
    **changed: list[Any],
) -> Path:
    """Shards as `publish` writes them: for each shard the rows of its row groups; some columns changed."""
    fields = {f"{use}_caption": column(f"{use}_caption", pa.string(), "A caption") for use in uses}
    schema = shard_schema(fields, uses, alone=subset != TOGETHER)
    first = 0
    for shard, groups in enumerate(sizes):
        tables = []
        for rows in groups:
            numbers = range(first, first + rows)
            columns: dict[str, Any] = {
                "id": pa.array([1000 + n for n in numbers], pa.int64()),
                "image": pa.array(
                    [{"bytes": image(n), "path": f"{n}.jpg"} for n in numbers], schema.field("image").type
                ),
            }
            for name in schema.names:
                use = "short" if "short" in (subset, name.partition("_")[0]) or "detailed" not in uses else "detailed"
                captions = pa.array([words(use, n) for n in numbers], pa.string())
                questions = pa.array([f"Ask {use} {n}?" for n in numbers], pa.string())
                columns.setdefault(name, conversations(questions, captions) if "conversations" in name else captions)
            columns |= {
                name: pa.array(values[first : first + rows], columns[name].type) for name, values in changed.items()
            }
            tables.append(pa.table([columns[name] for name in schema.names], schema=schema))
            first += rows
        write_parquet(Folder.at(folder), shard_name(subset, shard, "parquet"), schema, iter(tables))
    return folder
