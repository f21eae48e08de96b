"""Compute verdicts from stored facts and rules: which rows are kept, and where and why each other row left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from core.errors import UserError
from manifests.rules import Rule
from manifests.schemas import reference_column_of
from manifests.tables import Table

ERROR, PENDING, FIRST_RULE = 0, 1, 2
"""Why a row left: it failed; its facts are not computed yet; FIRST_RULE + i: the stage's rule i dropped it."""


@dataclass(frozen=True)
class StoredStage:
    """A stage of a run: its table of facts and its rules.

    Attributes:
        name: The stage's name, or that which the recipe gives it.
        table: The stage table.
        rules: The rules, in the recipe's order.
        earlier: The other tables that these rules read, of the index and of earlier stages, by column.
    """

    name: str
    table: Table
    rules: tuple[Rule, ...]
    earlier: Mapping[str, Table] = field(default_factory=dict)

    def reference_column(self, rule: Rule) -> str | None:
        """Return the column with the id of the other image, for a rule on a fact about two images; else None."""
        columns = self.table.writes
        return reference_column_of(columns.field(rule.column)) if rule.column in columns.names else None


@dataclass(frozen=True)
class Verdict:
    """Where every row of the index ended.

    Attributes:
        alive: Column `id`, sorted: the rows that passed all rules.
        left: Columns `id`, `stage` (UInt16: 0 is the index, the recipe's stages count from 1), `cause` (UInt16) and
            `missing` (whether a rule dropped the row for having no value), for each row that left.
        strays: Column `id`: rows that have facts of the stage, but did not reach it. Only `advance` fills it.
    """

    alive: pl.DataFrame
    left: pl.DataFrame
    strays: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"id": pl.Int64}))

    @property
    def rows(self) -> int:
        return self.alive.height + self.left.height

    def reached(self, stage: int, cause: int = 0) -> pl.DataFrame:
        """Return column `id`, sorted, of the rows that did not leave before this `stage` and `cause` (as in `left`)."""
        later = (pl.col("stage") > stage) | ((pl.col("stage") == stage) & (pl.col("cause") >= cause))
        return pl.concat([self.alive, self.left.filter(later).select("id")]).sort("id")


def valid_ids(index: Table) -> pl.DataFrame:
    """Return column `id`, sorted, of the rows that were indexed without an error."""
    rows = index.scan(["id", "error"]).filter(pl.col("error").is_null())
    return rows.select("id").collect(engine="streaming").sort("id")


def evaluate_rules(index: Table, stages: Sequence[StoredStage]) -> Verdict:
    """Evaluate the rules of all stages for every row of `index`.

    A row leaves at the first stage that drops it, where it failed, or where its facts are not computed. Memory and time
    are proportional to the rows that are still alive at each stage: about 25 bytes per row and column of a rule.

    Raises:
        UserError: A part is damaged, or parts of the index are missing.
    """
    alive = valid_ids(index)
    failed = index.scan(["id", "error"]).filter(pl.col("error").is_not_null()).select("id").collect(engine="streaming")
    left = [_leave(failed, 0, ERROR)]
    strays = []
    for number, stage in enumerate(stages, start=1):
        verdict = advance(alive, stage, number)
        alive = verdict.alive
        left.append(verdict.left)
        strays.append(verdict.strays)
    refuse_gaps(index, strays)
    return Verdict(alive, pl.concat(left))


def advance(alive: pl.DataFrame, stage: StoredStage, number: int = 0) -> Verdict:
    """Evaluate the rules of one stage for the rows of `alive` (ids, sorted). `number` fills the column `stage`."""
    reached, stored = facts(alive, stage, stage.rules)
    failed = reached["failed"]  # null: nothing is stored
    left = [
        _leave(reached.filter(failed.fill_null(False)), number, ERROR),
        _leave(reached.filter(failed.is_null()), number, PENDING),
    ]
    rows = reached.filter((~failed).fill_null(False))
    for position, rule in enumerate(stage.rules):
        if not rows.height:  # the table may be empty and lack the rule's columns
            break
        passed = rule.passes(rows)
        left.append(_leave(rows.filter(~passed), number, FIRST_RULE + position, pl.col(rule.column).is_null()))
        rows = rows.filter(passed)
    return Verdict(rows.select("id"), pl.concat(left), stray_rows(reached, stored))


def stale_references(alive: pl.DataFrame, stage: StoredStage) -> pl.DataFrame:
    """Return column `id` of the rows of `alive` (ids, sorted) that a rule drops because of a row that is not alive."""
    left = advance(alive, stage).left
    stale = [alive.head(0)]
    for position, rule in enumerate(stage.rules):
        reference_column = stage.reference_column(rule)
        if reference_column is None:
            continue
        dropped = left.filter(pl.col("cause") == FIRST_RULE + position).select("id")
        references = stage.table.scan(["id", reference_column]).filter(pl.col(reference_column).is_not_null())
        pairs = references.collect(engine="streaming").join(dropped, on="id", how="semi")
        stale.append(pairs.join(alive, left_on=reference_column, right_on="id", how="anti").select("id"))
    return pl.concat(stale).unique()


def stray_rows(reached: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have facts but did not reach the stage. The arguments are the results of `facts`."""
    if stored.height == reached.height - reached["failed"].null_count():
        return stored.clear()
    return stored.join(reached, on="id", how="anti")


def refuse_gaps(index: Table, strays: Sequence[pl.DataFrame]) -> None:
    """Refuse an index that lacks images which have facts.

    Args:
        index: The index. Replaced rows count as present: a shard that changed has new ids.
        strays: The result of `stray_rows` for each stage. All other rows with facts are in the index.

    Raises:
        UserError: The index lacks such an image.
    """
    if not any(ids.height for ids in strays):
        return
    missing = pl.concat(strays).unique().lazy().join(index.every_id(), on="id", how="anti").select(pl.len())
    if count := missing.collect(engine="streaming").item():
        raise UserError(
            f"{index.folder.path}: a part is missing: {count:,} images have facts, but no row in the index; "
            "copy it back, or run `vl3syn index` with this run to read the pool again"
        )


def facts(alive: pl.DataFrame, stage: StoredStage, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the facts that a stage has stored about `alive` (ids, sorted).

    Both sides are sorted by id and merged in one pass, which is a third of the work of a hash join. Tables are
    stored in that order, so sorting them is cheap.

    Returns:
        `alive` with the columns of `rules` and `failed` (null where nothing is stored), in the same order; and column
        `id` of all stored rows.
    """
    needed = {column for rule in rules for column in rule.columns}
    written = sorted(needed & set(stage.table.writes.names))
    columns = list(dict.fromkeys(["id", *written, "error"]))
    scan = stage.table.scan(columns).select("id", *written, pl.col("error").is_not_null().alias("failed"))
    stored = scan.collect(engine="streaming").sort("id")
    joined = alive.join_asof(stored, on="id", tolerance=0)
    for column in sorted(needed & set(stage.earlier) - set(written)):
        if column not in stage.earlier[column].schema.names:
            continue  # nothing is stored there, so no row reaches this stage
        values = stage.earlier[column].scan(["id", column]).collect(engine="streaming").sort("id")
        joined = joined.join_asof(values, on="id", tolerance=0)
    return joined, stored.select("id")


def _leave(rows: pl.DataFrame, stage: int, cause: int, missing: pl.Expr | None = None) -> pl.DataFrame:
    numbers = {"stage": pl.lit(stage, pl.UInt16), "cause": pl.lit(cause, pl.UInt16)}
    return rows.select("id", **numbers, missing=pl.lit(False) if missing is None else missing)
