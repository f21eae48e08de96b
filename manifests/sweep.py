"""Compute from stored facts how many rows other thresholds would keep, for combinations of several rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from operator import or_

import polars as pl

from core.errors import UserError, suggest
from manifests.rules import BALANCE, MODIFIERS, Rule, as_keep, parse_rules
from manifests.run_tables import RunTables
from manifests.schemas import is_amount
from manifests.verdict import PENDING, StoredStage, Verdict, evaluate_rules, facts, refuse_gaps, stray_rows

Thresholds = float | Iterable[float]
"""One threshold, or several: a list, a range, an array."""


@dataclass(frozen=True)
class _Step:
    """A rule of a stage with the variants to try. A rule that is not swept has one variant and no axis."""

    variants: tuple[Rule, ...]
    axis: str | None


@dataclass(frozen=True)
class _Branch:
    """One combination of thresholds, up to the current stage.

    Attributes:
        point: The threshold of each axis so far.
        alive: For each row, whether it is alive under these thresholds.
        unknown: How many rows could not be judged.
        reached: For each row, whether it reaches the current stage.
    """

    point: dict[str, float]
    alive: pl.Series
    unknown: int
    reached: pl.Series


def sweep(run: RunTables, axes: Mapping[str, Sequence[float]], verdict: Verdict | None = None) -> pl.DataFrame:
    """Count the kept rows for every combination of thresholds.

    Facts about pairs, such as those of `duplicates`, come from the images that reached the stage at the time. If a rule
    drops an image because of another one that does not reach the stage under the new thresholds, the first image counts
    as `to_compute`. One case is not detected: an image reaches the stage again, but was absent when its group was last
    compared. Run the stage to get exact numbers.

    Args:
        run: The run. No facts are computed, and nothing is written.
        axes: `{"aspect_ratio.max": [2, 2.5], "aspect_ratio.min_side": [100, 200]}`: stage, rule as in a recipe, and the
            thresholds to try. A rule that is not in the recipe is applied after the stage's other rules.
        verdict: The result of `run.verdict()`, if it is computed already. Then stages before the first swept one are
            not evaluated again.

    Returns:
        One row per combination, in the given order: a Float64 column per axis, `kept` (rows that pass all rules) and
        `to_compute` (rows that could not be judged, because facts are not stored or refer to an image that does not
        reach the stage; they may add to `kept`).

    Raises:
        UserError: There is no such stage or rule, a threshold is out of range, or the stage has stored nothing yet.
    """
    stages = run.stages
    steps = _steps(stages, axes)
    begin = _begin(steps)
    before = verdict or evaluate_rules(run.index, stages[:begin])
    rows = before.reached(begin + 1)
    pending = before.left.filter((pl.col("cause") == PENDING) & (pl.col("stage") <= begin)).height
    strays = []
    everything = pl.repeat(True, rows.height, dtype=pl.Boolean, eager=True)
    branches = [_Branch({}, everything, pending, everything)]
    for stage, plan in steps[begin:]:
        reached, stored = facts(rows, stage, [v for step in plan for v in step.variants])
        strays.append(stray_rows(reached, stored))
        rows = reached
        branches = [_judge(branch, rows["failed"]) for branch in branches]
        for step in plan:
            branches = _split(rows, branches, step, _references(rows["id"], stage, step))
        union = reduce(or_, (b.alive for b in branches))
        rows = rows.filter(union).select("id")
        branches = [replace(b, alive=b.alive.filter(union)) for b in branches]
    refuse_gaps(run.index, strays)
    results = {tuple(b.point[a] for a in axes): (int(b.alive.sum()), b.unknown) for b in branches}
    points = list(product(*(map(float, values) for values in axes.values())))
    columns = {name: [p[i] for p in points] for i, name in enumerate(axes)}
    counts = {"kept": [results[p][0] for p in points], "to_compute": [results[p][1] for p in points]}
    return pl.DataFrame(columns | counts)


def spread(run: RunTables) -> pl.DataFrame:
    """Return the quantiles of every column that a threshold can apply to, over all stored rows without an error.

    Returns:
        Columns `stage`, `column`, `rows`, `missing`, `min`, `p05`, `p25`, `p50`, `p75`, `p95`, `max`.
    """
    quantiles = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    lines: list[dict[str, object]] = []
    for stage in run.stages:
        for field in stage.table.writes:
            if not is_amount(field):
                continue
            sound_rows = stage.table.scan([field.name, "error"]).filter(pl.col("error").is_null())
            values = sound_rows.select(field.name).collect(engine="streaming")[field.name]
            at_quantiles = {name: values.quantile(q, "nearest") for name, q in quantiles.items()}
            lines.append(
                {
                    "stage": stage.name,
                    "column": field.name,
                    "rows": values.len(),
                    "missing": values.null_count(),
                    **at_quantiles,
                }
            )
    return pl.DataFrame(lines)


def axes_of(
    axes: Mapping[str, Thresholds] | None, stages: Mapping[str, Mapping[str, Thresholds]]
) -> dict[str, list[float]]:
    """Return the axes of `sweep`, from `{"quality.min": [0.5, 0.6]}` and from `{"quality": {"min": [0.5, 0.6]}}`.

    Raises:
        UserError: A threshold is no number, a stage has no mapping, or both name the same axis.
    """
    merged = dict(axes or {})
    for stage, rules in stages.items():
        if not isinstance(rules, Mapping):
            raise UserError(f'{stage}: give a mapping of rules to thresholds, as in {stage}={{"min": [1, 2]}}')
        for rule, thresholds in rules.items():
            if f"{stage}.{rule}" in merged:
                raise UserError(f"{stage}.{rule} is given twice: list all of its thresholds in one place")
            merged[f"{stage}.{rule}"] = thresholds
    return {axis: _numbers(axis, thresholds) for axis, thresholds in merged.items()}


def _numbers(axis: str, thresholds: Thresholds) -> list[float]:
    try:
        return [float(value) for value in (thresholds if isinstance(thresholds, Iterable) else (thresholds,))]
    except (TypeError, ValueError) as error:
        raise UserError(f"{axis}: thresholds are numbers, not {thresholds!r}") from error


def _steps(stages: Sequence[StoredStage], axes: Mapping[str, Sequence[float]]) -> list[tuple[StoredStage, list[_Step]]]:
    by_stage: dict[str, dict[str, tuple[Rule, ...]]] = {s.name: {} for s in stages}
    labels: dict[tuple[str, str], str] = {}
    for axis, values in axes.items():
        name, _, key = axis.partition(".")
        stage = next((s for s in stages if s.name == name), None)
        if stage is None or not key:
            valid = [f"{s.name}.{r.name}" for s in stages for r in s.rules]
            example = valid[0] if valid else "aspect_ratio.max"
            raise UserError(f"{axis}: an axis is STAGE.RULE, as in {example}{suggest(name, by_stage)}")
        variants = _variants(stage, key, values)
        if variants[0].name in by_stage[name]:
            raise UserError(f"{axis} and {labels[name, variants[0].name]} are the same rule; give one of them")
        by_stage[name][variants[0].name] = variants
        labels[name, variants[0].name] = axis
    steps = []
    for stage in stages:
        swept = by_stage[stage.name]
        present = [_Step(swept.get(r.name, (r,)), labels.get((stage.name, r.name))) for r in stage.rules]
        new = [_Step(v, labels[stage.name, n]) for n, v in swept.items() if n not in {r.name for r in stage.rules}]
        steps.append((stage, present + new))
    return steps


def _begin(steps: Sequence[tuple[StoredStage, list[_Step]]]) -> int:
    """Return the position of the first stage that has a swept rule or one on pairs (see `_lonely`).

    Stages before it are evaluated once, as for a verdict.
    """
    for position, (stage, plan) in enumerate(steps):
        if any(step.axis or stage.reference_column(step.variants[0]) for step in plan):
            return position
    return len(steps)


def _variants(stage: StoredStage, key: str, values: Sequence[float]) -> tuple[Rule, ...]:
    writes = stage.table.writes
    if not writes.names:
        raise UserError(f"{stage.name}: nothing is stored yet; run it first")
    if not values:
        raise UserError(f"{stage.name}.{key}: no thresholds given")
    fields = {column: table.schema.field(column) for column, table in stage.earlier.items()}
    preferred = {k: v for k, v in as_keep(stage.rules).items() if k in MODIFIERS} if key.startswith(BALANCE) else {}
    keeps = ({key: value, **preferred} for value in dict.fromkeys(values))
    return tuple(parse_rules(keep, writes, stage.name, fields)[0] for keep in keeps)


def _judge(branch: _Branch, failed: pl.Series) -> _Branch:
    """Drop the rows that failed, and those whose facts are not stored. Count the latter as unknown."""
    missing = int((branch.alive & failed.is_null()).sum())
    alive = branch.alive & ~failed.fill_null(True)
    return replace(branch, alive=alive, unknown=branch.unknown + missing, reached=branch.alive)


def _references(ids: pl.Series, stage: StoredStage, step: _Step) -> pl.Series | None:
    """For each of `ids`, return the position in `ids` of the image because of which the rule may drop it.

    Returns:
        Null if that image is not in `ids`, -1 if there is no such image. None if the rule is not about pairs.
    """
    reference_column = stage.reference_column(step.variants[0])
    if reference_column is None:
        return None
    pairs = stage.table.scan(["id", reference_column]).rename({reference_column: "other"}).collect(engine="streaming")
    positions = ids.to_frame().select(pl.col("id").alias("other"), pl.int_range(pl.len()).alias("position"))
    located = ids.to_frame().join(pairs, on="id", how="left", maintain_order="left")
    located = located.join(positions, on="other", how="left", maintain_order="left")
    return located.select(pl.when(pl.col("other").is_null()).then(-1).otherwise("position")).to_series()


def _split(rows: pl.DataFrame, branches: Sequence[_Branch], step: _Step, references: pl.Series | None) -> list[_Branch]:
    """Split each branch into one branch per variant of a rule."""
    # min and max judge each row by itself, so once for all branches. Other kinds depend on the rows that reach them.
    alone = {rule: rule.passes(rows) for rule in step.variants if rule.kind in ("min", "max") and rule.column in rows}
    split = []
    for branch in branches:
        for rule in step.variants:
            point = {**branch.point, step.axis: rule.threshold} if step.axis else branch.point
            passed = alone[rule] if rule in alone else _among(rows, branch.alive, rule)
            lonely = _lonely(branch, branch.alive & ~passed, references) if references is not None else 0
            split.append(_Branch(point, branch.alive & passed, branch.unknown + lonely, branch.reached))
    return split


def _lonely(branch: _Branch, dropped: pl.Series, references: pl.Series) -> int:
    """Return how many rows are dropped because of an image that does not reach the stage (see `_references`)."""
    reached_too = (references == -1) | branch.reached.gather(references.replace(-1, None))
    return int((dropped & ~reached_too.fill_null(False)).sum())


def _among(rows: pl.DataFrame, alive: pl.Series, rule: Rule) -> pl.Series:
    if not alive.any():
        return alive
    reached = rows.filter(alive)
    return rows["id"].is_in(reached["id"].filter(rule.passes(reached)).implode())
