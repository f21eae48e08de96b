"""Scores of a run: the values that reached each rule, what the rule made of them, and what other thresholds would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from manifests.rules import BALANCE, Rule
from manifests.run import Run
from manifests.schemas import bounds, is_amount
from manifests.sweep import sweep
from manifests.tables import Table
from manifests.verdict import FIRST_RULE, StoredStage, Verdict

_QUANTILES = (-0.1, -0.05, 0.05, 0.1)
"""Where the neighbours of a threshold lie: so much further along the ordered values that reach the rule."""

_FACTORS = (0.5, 0.75, 1.5, 2.0)
"""Where the neighbours of a number of rows lie."""


@dataclass(frozen=True)
class Neighbour:
    """What one threshold of a rule would keep; all other rules stay as they are.

    Attributes:
        threshold: The threshold.
        kept: Rows that the whole recipe would keep.
        to_compute: Rows that lack facts to be judged by (see `manifests.sweep`).
        now: Whether it is the recipe's threshold.
    """

    threshold: float
    kept: int
    to_compute: int
    now: bool


@dataclass(frozen=True)
class Score:
    """A column of numbers, over the rows that reach its rule, or that reach its stage if it has none.

    Attributes:
        stage: The step's name.
        column: The column.
        doc: What the column means.
        rule: The rule; None for a column without one.
        passed: Values that pass the rule; without a rule, those of rows that the whole recipe keeps. Finite float64.
        dropped: The other values.
        missing: Rows without a value, or with one that is not finite.
        kept: Rows that pass; without a rule, rows that the whole recipe keeps.
        lost: The other rows.
        edge: The value at which the rule cuts; None if it does not cut by value.
        neighbours: What other thresholds would keep; none without a rule.
    """

    stage: str
    column: str
    doc: str
    rule: Rule | None
    passed: np.ndarray
    dropped: np.ndarray
    missing: int
    kept: int
    lost: int
    edge: float | None = None
    neighbours: tuple[Neighbour, ...] = ()


def scores(run: Run, verdict: Verdict) -> Iterator[Score]:
    """Yield the scores of each stage in the recipe's order: of its rules first, then of its other columns.

    Rules on groups (`per_group`, `total`) have no values to draw, only neighbours.

    Args:
        run: The run.
        verdict: Its verdict.
    """
    for number, stage in enumerate(run.stages, start=1):
        for position in range(len(stage.rules)):
            yield _of_rule(run, verdict, stage, number, position)
        ruled = {rule.column for rule in stage.rules if rule.kind not in BALANCE}
        for field in stage.table.writes:
            if is_amount(field) and field.name not in ruled:
                rows = verdict.reached(number, FIRST_RULE)
                yield _score(stage, stage.table, field.name, None, rows, verdict.alive)


def _of_rule(run: Run, verdict: Verdict, stage: StoredStage, number: int, position: int) -> Score:
    rule = stage.rules[position]
    reached = verdict.reached(number, FIRST_RULE + position)
    passed = verdict.reached(number, FIRST_RULE + position + 1)
    table = stage.table if rule.column in stage.table.writes.names else stage.earlier[rule.column]
    score = _score(stage, table, rule.column, rule, reached, passed)
    field = table.schema.field(rule.column)
    return replace(score, edge=_edge(score), neighbours=_neighbours(run, verdict, stage, score, field))


def _score(
    stage: StoredStage, table: Table, column: str, rule: Rule | None, reached: pl.DataFrame, passed: pl.DataFrame
) -> Score:
    field = table.schema.field(column)
    doc = (field.metadata or {}).get(b"doc", b"").decode()
    if rule and rule.kind in BALANCE:
        nothing = np.empty(0)
        return Score(stage.name, column, doc, rule, nothing, nothing, 0, passed.height, reached.height - passed.height)
    stored = table.scan(["id", column]).collect(engine="streaming").sort("id")
    values = reached.join_asof(stored, on="id", tolerance=0)[column].cast(pl.Float64)
    stays = reached["id"].is_in(passed["id"].implode()).to_numpy()
    numbers = values.fill_null(np.nan).to_numpy()
    finite = np.isfinite(numbers)
    kept = int(stays.sum())
    return Score(
        stage=stage.name,
        column=column,
        doc=doc,
        rule=rule,
        passed=numbers[finite & stays],
        dropped=numbers[finite & ~stays],
        missing=int((~finite).sum()),
        kept=kept,
        lost=len(stays) - kept,
    )


def _edge(score: Score) -> float | None:
    """Return where the rule cuts. For `top` it is the smallest value that passed."""
    rule = score.rule
    assert rule is not None
    if rule.kind in ("min", "max"):
        return rule.threshold
    return float(score.passed.min()) if rule.kind == "top" and len(score.passed) else None


def _neighbours(run: Run, verdict: Verdict, stage: StoredStage, score: Score, field: pa.Field) -> tuple[Neighbour, ...]:
    rule = score.rule
    assert rule is not None
    if not score.kept + score.lost:
        return ()
    thresholds = sorted({rule.threshold, *_candidates(score, field)})
    counted = sweep(run, {f"{stage.name}.{rule.name}": thresholds}, verdict)
    rows = counted.select("kept", "to_compute").rows()
    return tuple(
        Neighbour(threshold, kept, unknown, threshold == rule.threshold)
        for threshold, (kept, unknown) in zip(thresholds, rows, strict=True)
    )


def _candidates(score: Score, field: pa.Field) -> Iterator[float]:
    """Yield thresholds near the rule's."""
    rule = score.rule
    assert rule is not None
    if rule.kind in BALANCE:
        yield from (float(max(1, round(rule.threshold * factor))) for factor in _FACTORS)
        return
    if rule.kind == "top":
        yield from (round(rule.threshold + step, 4) for step in _QUANTILES if 0 < round(rule.threshold + step, 4) <= 1)
        return
    values = np.sort(np.concatenate([score.passed, score.dropped]))
    if not len(values):
        return
    low, high = bounds(field)
    at = np.searchsorted(values, rule.threshold) / len(values)
    for step in _QUANTILES:
        value = float(values[int(np.clip((at + step) * len(values), 0, len(values) - 1))])
        value = float(f"{value:.3g}")  # of integers, too
        if low <= value <= high:
            yield value
