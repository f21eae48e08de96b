"""The sweep: how many rows other thresholds would keep, jointly over several rules, from stored facts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from manifests.rules import Rule, parse_keep, suggest
from manifests.run import Run
from manifests.verdict import StoredStage, facts


@dataclass(frozen=True)
class _Step:
    """One rule of one stage and the variants of it that the sweep tries (one where it is not swept)."""

    variants: tuple[Rule, ...]
    axis: str | None


def sweep(run: Run, axes: Mapping[str, Sequence[float]]) -> pl.DataFrame:
    """Try every combination of thresholds.

    Args:
        run: The run; nothing is computed or written.
        axes: `{"aspect_ratio.max": [2, 2.5], "aspect_ratio.min_side": [100, 200]}`: a stage, a rule as a recipe
            writes it, and its thresholds. A rule that the recipe does not have is tried after those it has.

    Returns:
        One row per combination, in the order given: a Float64 column per axis, `kept` (rows that pass everything)
        and `to_compute` (rows whose facts at some stage are not stored, so that they could not be judged).

    Raises:
        ValueError: No such stage or rule, a threshold out of range, or nothing stored for the stage yet.
    """
    steps = _steps(run.stages, axes)
    rows = _gather(run, steps)
    points = list(_walk(rows, list(steps), {}, 0))
    order = [pl.Series(name, [p[name] for p in points], dtype=pl.Float64) for name in axes]
    counts = [pl.Series(name, [int(p[name]) for p in points], dtype=pl.Int64) for name in ("kept", "to_compute")]
    tried = pl.DataFrame([*order, *counts])
    wanted = pl.DataFrame({name: [float(v) for v in axes[name]] for name in list(axes)[:1]})
    for name in list(axes)[1:]:
        wanted = wanted.join(
            pl.DataFrame({name: [float(v) for v in axes[name]]}), how="cross", maintain_order="left_right"
        )
    return wanted.join(tried, on=list(axes), how="left", maintain_order="left")


def spread(run: Run) -> pl.DataFrame:
    """The quantiles of every numeric column that a rule can be about, over all stored rows without an error.

    Returns:
        Columns `stage`, `column`, `rows`, `missing`, `min`, `p05`, `p25`, `p50`, `p75`, `p95`, `max`.
    """
    quantiles = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    found: list[dict[str, object]] = []
    for stage in run.stages:
        scan = stage.table.scan().filter(pl.col("error").is_null())
        for field in stage.table.schema:
            if field.name in ("id", "retry") or not _numeric(scan, field.name):
                continue
            values = scan.select(pl.col(field.name)).collect(engine="streaming")[field.name]
            told = {name: values.quantile(q, "nearest") for name, q in quantiles.items()}
            found.append(
                {
                    "stage": stage.name,
                    "column": field.name,
                    "rows": values.len(),
                    "missing": values.null_count(),
                    **told,
                }
            )
    return pl.DataFrame(found)


def _numeric(scan: pl.LazyFrame, name: str) -> bool:
    return scan.collect_schema()[name].is_numeric()


def _steps(stages: Sequence[StoredStage], axes: Mapping[str, Sequence[float]]) -> list[tuple[StoredStage, list[_Step]]]:
    by_stage: dict[str, dict[str, tuple[Rule, ...]]] = {s.name: {} for s in stages}
    labels: dict[tuple[str, str], str] = {}
    for axis, values in axes.items():
        name, _, key = axis.partition(".")
        stage = next((s for s in stages if s.name == name), None)
        if stage is None or not key:
            valid = [f"{s.name}.{r.name}" for s in stages for r in s.rules]
            example = valid[0] if valid else "aspect_ratio.max"
            raise ValueError(f"{axis}: an axis is STAGE.RULE, as in {example}{suggest(name, by_stage)}")
        variants = _variants(stage, key, values)
        by_stage[name][variants[0].name] = variants
        labels[name, variants[0].name] = axis
    steps = []
    for stage in stages:
        swept = by_stage[stage.name]
        own = [_Step(swept.get(r.name, (r,)), labels.get((stage.name, r.name))) for r in stage.rules]
        new = [_Step(v, labels[stage.name, n]) for n, v in swept.items() if n not in {r.name for r in stage.rules}]
        steps.append((stage, own + new))
    return steps


def _variants(stage: StoredStage, key: str, values: Sequence[float]) -> tuple[Rule, ...]:
    import pyarrow as pa

    writes = pa.schema([f for f in stage.table.schema if f.name not in ("id", "error", "retry")])
    if not writes.names:
        raise ValueError(f"{stage.name}: nothing is stored yet; run it first")
    if not values:
        raise ValueError(f"{stage.name}.{key}: no thresholds given")
    return tuple(parse_keep({key: value}, writes, stage.name)[0] for value in dict.fromkeys(values))


def _gather(run: Run, steps: Sequence[tuple[StoredStage, list[_Step]]]) -> pl.DataFrame:
    """All facts that the sweep needs, joined once; a row that every variant of a rule turns away goes no further."""
    rows = run.index.scan().filter(pl.col("error").is_null()).select("id").collect(engine="streaming")
    carried: list[str] = []
    for number, (stage, plan) in enumerate(steps):
        wanted = StoredStage(stage.name, stage.table, tuple(v for step in plan for v in step.variants[:1]))
        rows = facts(rows, wanted, carried).rename({"failed": f"failed_{number}"})
        for step in plan:
            column = step.variants[0].column
            if step.variants[0].kind == "top" or column not in rows.columns:
                continue
            # Both ends, since the loosest of min variants is the smallest and of max variants the largest.
            ends = {min(step.variants, key=lambda r: r.threshold), max(step.variants, key=lambda r: r.threshold)}
            # A row that an earlier stage has not computed stays: it is counted there.
            judged = [pl.col(f"failed_{n}").is_not_null() for n in range(number + 1)]
            hopeless = rows.select(pl.all_horizontal(judged)).to_series() & (rows[f"failed_{number}"] == False)  # noqa: E712
            for rule in ends:
                hopeless &= ~rule.passes(rows)
            rows = rows.filter(~hopeless)
        carried = [c for c in rows.columns if c != "id"]
    return rows


def _walk(
    rows: pl.DataFrame,
    steps: list[tuple[StoredStage, list[_Step]]],
    point: dict[str, float],
    unknown: int,
    number: int = 0,
) -> Iterator[dict[str, float]]:
    if number == len(steps):
        yield {**point, "kept": rows.height, "to_compute": unknown}
        return
    failed = rows[f"failed_{number}"]
    unknown += failed.null_count()
    rows = rows.filter((~failed).fill_null(False)).drop(f"failed_{number}")
    yield from _branch(rows, steps, steps[number][1], point, unknown, number)


def _branch(
    rows: pl.DataFrame,
    steps: list[tuple[StoredStage, list[_Step]]],
    plan: list[_Step],
    point: dict[str, float],
    unknown: int,
    number: int,
) -> Iterator[dict[str, float]]:
    if not plan:
        yield from _walk(rows, steps, point, unknown, number + 1)
        return
    step, *rest = plan
    for rule in step.variants:
        here = {**point, step.axis: rule.threshold} if step.axis else point
        yield from _branch(rows.filter(rule.passes(rows)) if rows.height else rows, steps, rest, here, unknown, number)
