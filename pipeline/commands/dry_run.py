"""`vl3syn run --dry-run`: print what a run would do, and with `--measure` how long it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.errors import UserError

if TYPE_CHECKING:
    from pipeline.execution.estimates import StageTrial, Trial
    from pipeline.execution.preview import ModelPreview, Preview, StagePreview


def dry_run(recipe: str, url: str, refit: bool, measure: bool, sample: int | None, json_: bool) -> None:
    """Print the plan of a run; compute and write nothing in its directory.

    Raises:
        UserError: What `vl3syn run` would refuse before it computes anything, or why the sample did not get through all
            stages; both are raised after printing.
    """
    from pipeline.commands import output
    from pipeline.execution.preview import preview
    from pipeline.execution.trial import SAMPLE, try_out
    from pipeline.recipe import load_recipe

    checked = load_recipe(recipe)
    plan, listing = preview(checked, url, refit)
    trial = None
    if measure and not plan.errors:
        images = sample or SAMPLE
        output.say(f"measuring up to {images} {checked.pool.noun}s in a temporary run directory beside {url}")
        trial = try_out(checked, plan, listing, url, images)
    if json_:
        output.print_json({**plan.as_json(), **({"trial": trial.as_json()} if trial else {})})
    else:
        _print_plan(plan)
        if trial:
            _print_trial(trial, checked.pool.noun, "the films, without their clips" if plan.clips else "the whole run")
    if plan.errors:
        raise UserError(plan.errors[0])
    if trial and trial.stopped:
        raise UserError(f"the trial ended early: {trial.stopped}")


def _print_plan(plan: Preview) -> None:
    from pipeline.commands import output

    pool = plan.pool
    rows: list[tuple[str, Any]] = [
        ("pool", f"{pool.kind}: {pool.where}"),
        ("shards", f"{pool.shards:,}, {pool.unread:,} of them to index"),
        ("rows", f"{pool.indexed:,} indexed, {_count(pool.new)} new; {_count(pool.usable)} can be used"),
        ("numbers and embeddings", _size(plan.fact_bytes, "at most ")),
        ("images to publish", _size(plan.image_bytes, "at most ")),
    ]
    output.print_rows("what a run would do", ("what", "value"), rows)
    for title, of_these in (("stages", plan.stages), ("stages over the clips", plan.clips)):
        stages = [(s.stage, s.stored, _to_compute(s), _row_size(s), s.runs, s.lacks or "") for s in of_these]
        if stages or of_these is plan.stages:
            output.print_rows(title, ("stage", "stored", "to compute", "a row", "where", "lacks"), stages)
    models = {m.name: m for s in (*plan.stages, *plan.clips) for m in s.models}
    if models:
        lines = [(m.name, m.licence or "unknown", _here(m), m.weights) for m in models.values()]
        output.print_rows("models", ("model", "licence", "here", "weights"), lines)


def _print_trial(trial: Trial, noun: str, what: str) -> None:
    from pipeline.commands import output

    rows = [
        (
            t.stage,
            t.rows,
            t.errors,
            _rate(t),
            _size(round(t.row_bytes)) if t.row_bytes else "",
            _rows(t),
            _span(t.run_seconds),
            t.note,
        )
        for t in trial.stages
    ]
    columns = ("stage", "measured", "errors", f"{noun}s/s", "a row", "rows of the run", "time", "note")
    output.print_rows(f"measured with {trial.images:,} {noun}s", columns, rows)
    size = _size(None if trial.run_bytes is None else round(trial.run_bytes), "at most ")
    output.out.print(f"{what}: {_span(trial.run_seconds)}; {size} of facts and downloads", style="bold", markup=False)


def _to_compute(stage: StagePreview) -> str:
    if stage.to_compute is None:
        return "unknown"
    return f"{'at most ' if stage.at_most else ''}{stage.to_compute:,}"


def _count(rows: int | None) -> str:
    return "an unknown number, until the index is made," if rows is None else f"{rows:,}"


def _row_size(stage: StagePreview) -> str:
    return f"{stage.row_bytes:,} B{' and texts' if stage.has_texts else ''}"


def _here(model: ModelPreview) -> str:
    from pipeline.execution.preview import PACKAGES

    return "" if model.weights.startswith(PACKAGES) else "no" if model.bytes is None else _size(model.bytes)


def _size(count: int | None, before: str = "") -> str:
    if count is None:
        return "unknown"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{before}{count / size:,.1f} {unit}"
    return f"{before}{count / 1e3:,.1f} kB" if count >= 1e3 else f"{before}{count} B"


def _rate(trial: StageTrial) -> str:
    if not trial.rows:
        return ""
    low, high = (1 / max(seconds, 1e-6) for seconds in reversed(trial.row_seconds))
    return f"{low:,.3g} to {high:,.3g}" if high < 1e5 else f"{low:,.3g} or more"


def _rows(trial: StageTrial) -> str:
    if trial.run_rows is None:
        return "unknown"
    low, high = trial.run_rows
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _span(seconds: tuple[float, float] | None) -> str:
    if seconds is None:
        return "unknown"
    low, high = map(_duration, seconds)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
