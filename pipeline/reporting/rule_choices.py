"""Choose images for each rule: the best, the worst, and the borderline ones on both sides of the threshold."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from manifests.rules import BALANCE, Rule
from manifests.verdict import FIRST_RULE, StoredStage
from pipeline.reporting.choice import Choice, ChoiceGroup, Seen, mixed

IMAGES = 6
"""Images of a gallery."""


def rule_choices(seen: Seen) -> list[ChoiceGroup]:
    """Return the galleries of each rule that compares a score, in the order of the recipe.

    Balance rules compare no score, and rules on pairs of images are about both: they have galleries of their own
    (`group_choices.py`, `duplicate_choices.py`).
    """
    groups = []
    for number, stage in enumerate(seen.run.stages, start=1):
        for position, rule in enumerate(stage.rules):
            if rule.kind in BALANCE or stage.reference_column(rule):
                continue
            rows = _scores(seen, stage, rule, number, FIRST_RULE + position)
            if rows.height:
                groups.append(_group(stage, rule, rows, seen.noun))
    return groups


def table_of(stage: StoredStage, column: str) -> pl.LazyFrame:
    """Return columns `id` and `column` as stored by the stage or, if it reads the column, by an earlier one."""
    table = stage.table if column in stage.table.writes.names else stage.earlier[column]
    return table.scan(["id", column])


def _scores(seen: Seen, stage: StoredStage, rule: Rule, number: int, cause: int) -> pl.DataFrame:
    """Return the rows with a value that reached the rule: `id`, `goodness` (larger is better) and `passed`."""
    value = pl.col(rule.column)
    good = -value.cast(pl.Float64) if rule.kind == "max" else value.cast(pl.Float64)
    stored = table_of(stage, rule.column).select("id", goodness=good.fill_nan(None)).drop_nulls()
    return seen.reached(stored, number, cause).collect(engine="streaming")


def _group(stage: StoredStage, rule: Rule, rows: pl.DataFrame, noun: str) -> ChoiceGroup:
    choices = [
        Choice(title, ids, columns=(rule.column,))
        for title, ids in _by_title(mixed(rows).sort("goodness", maintain_order=True))
        if ids
    ]
    passed = int(rows["passed"].sum())
    note = f"{passed:,} of {rows.height:,} {noun}s pass; dropped if {rule}."
    return ChoiceGroup(f"{stage.name}: {rule.column}", choices, note, stage=stage.name, rule=rule.name)


def _by_title(rows: pl.DataFrame) -> Iterator[tuple[str, list[int]]]:
    """Yield the titles and images of a rule's galleries. `rows` are sorted by goodness.

    An image is in one gallery only: if a few passed, they are borderline.
    """
    passed, dropped = (rows.filter(pl.col("passed") == side)["id"].to_list() for side in (True, False))
    borderline_kept, borderline_dropped = passed[:IMAGES], dropped[-IMAGES:][::-1]
    best = passed[len(borderline_kept) :][-IMAGES:][::-1]
    worst = dropped[: len(dropped) - len(borderline_dropped)][:IMAGES]
    yield "Best", best
    yield "Borderline, kept", borderline_kept
    yield "Borderline, dropped", borderline_dropped
    yield "Worst", worst
