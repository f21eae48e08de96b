"""What runs inside of Ray's workers: a part of a stage computed in batches, held to its contract, stored at once."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from manifests.schemas import table_schema
from pipeline.stages import Facts, Stage
from pipeline.store import Store


class StageLoadError(ValueError):
    """A stage could not load; the text is the user's line."""


class StageActor:
    """A stage that has something to load, in a Ray actor."""

    def __init__(self, stage: Any, batch_size: int, store: Store) -> None:
        self._part = {"stage": stage, "batch_size": batch_size, "store": store}
        self._refused: str | None = None
        try:
            self._facts: Facts = stage.load()
        except (ValueError, OSError) as error:
            # Told by the first part: of an actor that dies here Ray tells only the traceback.
            self._refused = " ".join(str(error).split())

    def __call__(self, rows: pa.Table) -> pa.Table:
        if self._refused:
            raise StageLoadError(self._refused)
        return compute_part(rows, facts=self._facts, **self._part)


def compute_part(rows: pa.Table, stage: Any, batch_size: int, store: Store, facts: Facts | None = None) -> pa.Table:
    """Compute one part in batches, store it at once, and return its receipt."""
    starts = range(0, rows.num_rows, batch_size)
    batches = [compute_batch(rows.slice(start, batch_size), stage, facts or stage) for start in starts]
    return store(pa.concat_tables(batches))


def compute_batch(batch: pa.Table, stage: Stage, facts: Facts) -> pa.Table:
    """One batch of a stage table, held to the stage's contract."""
    schema = table_schema(stage.writes)
    computed = facts(batch.select(list(stage.reads)))
    if computed.num_rows != batch.num_rows:
        raise TypeError(f"{stage.name} made {computed.num_rows} rows of {batch.num_rows}")
    for name, type_, default in (("error", pa.string(), None), ("retry", pa.bool_(), False)):
        if name not in computed.column_names:
            computed = computed.append_column(name, pa.array([default] * batch.num_rows, type_))
    return computed.add_column(0, "id", batch["id"]).select(schema.names).cast(schema)
