"""Check, before rows are computed, that the pool has the columns `pool.X` that a stage reads."""

from __future__ import annotations

from core.errors import UserError
from manifests.tables import Table
from pipeline.pools import Pool
from pipeline.recipe import Step, pool_column

_MOST = 20  # names in an error


def check_pool_columns(step: Step, pool: Pool, index: Table) -> None:
    """Check that some indexed shard has each column of the pool that a step reads; a shard may lack it.

    Nothing is checked if the columns of a shard are only known when all of it is read, as in JSON Lines.

    Raises:
        UserError: No shard has the column; the text names those that they have.
    """
    wanted = {name for column in step.stage.reads if (name := pool_column(column))}
    if not wanted or step.stage.optional_pool_columns:
        return
    root, known = pool.root(), set[str]()
    for shard in index.scan(["shard"]).unique(maintain_order=True).collect()["shard"]:
        names = pool.column_names(root, shard)
        if names is None:
            return
        known.update(names)
        if wanted <= known:
            return
    if known:
        others = sorted(known)
        listed = ", ".join(others[:_MOST]) + (", …" if len(others) > _MOST else "")
        raise UserError(f"{step.name}: the pool has no column {min(wanted - known)!r}, only {listed}")
