"""A run whose index is made of a real pool, and whose facts are given: for tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import Run, open_run
from manifests.run import stage_folder
from manifests.schemas import table_schema
from manifests.tables import Table
from pipeline.execution.index import READER, open_pool
from pipeline.execution.runner import prepare
from pipeline.recipe import parse_recipe

Facts = Mapping[str, Mapping[str, Mapping[str, Any] | str]]


def store_run(url: Path | str, recipe: Mapping[str, Any], facts: Facts) -> Run:
    """Index the pool, and store facts.

    Args:
        url: The run directory, or its URL.
        recipe: The recipe.
        facts: For each stage and key of an image its columns, or its error.
    """
    checked = parse_recipe(dict(recipe), "test")
    opened = prepare(checked, str(url))
    listing = open_pool(checked.pool, str(url))
    rows = checked.pool.index(listing.root, listing.shards)
    opened.index.append(rows, opened.index.next_writer(), {"reader": READER})
    ids = ids_of(opened)
    for step in checked.steps:
        table = Table(stage_folder(opened.folder, step.table), table_schema(step.stage.writes))
        stored = facts.get(step.name, {})
        stored_rows = [
            {"id": ids[key], "retry": False, **({"error": value} if isinstance(value, str) else value)}
            for key, value in stored.items()
        ]
        if stored_rows:
            stored_rows.sort(key=lambda row: row["id"])
            table.append(pa.Table.from_pylist(stored_rows, schema=table.schema), table.next_writer(), {})
    return open_run(str(url))


def ids_of(run: Run) -> dict[str, int]:
    """The ids of a run's images, by key."""
    rows = run.index.scan(["key", "id"]).collect()
    return dict(rows.iter_rows())
