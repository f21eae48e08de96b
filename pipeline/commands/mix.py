"""`vl3syn mix`: what a training will see, before it costs money."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError, suggest
from core.secrets import refuse_credentials
from pipeline.commands.options import JsonOption

if TYPE_CHECKING:
    from model.training.forecast import StageForecast
    from model.training.source_sample import Progress
    from model.training.stage_plan import StagePlan
    from pipeline.reporting.mix import SourceView

mix_app = typer.Typer()

SHOWN = 10
"""Samples of each source on the page."""

_FEWEST = 30  # samples of a source: with fewer, the intervals are too narrow
_SECONDS = 5.0  # between two lines of progress


@mix_app.command()
def mix(
    recipe: Annotated[str, typer.Argument(help="A training recipe: a YAML file such as recipes/train-demo.yaml")],
    sample: Annotated[
        int,
        typer.Option(
            min=_FEWEST, help="Samples of each source and stage that are read; if these are all, all is exact"
        ),
    ] = 200,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be given again")] = None,
    limit: Annotated[
        float | None, typer.Option(min=0, help="Read samples for at most so many seconds, but some of each source")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="GPUs: they must divide the lanes of each stage")] = 1,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=1e-3, help="Tokens per second of one GPU, for the hours")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(min=1e-3, help="TFLOP/s that one GPU reaches, its peak times MFU, for the hours")
    ] = None,
    page: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="Write ten samples per source as the model sees them")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Say what a training will see: samples, tokens, images, film, skipped samples, steps, hours. Nothing is trained.

    Some samples of each source are prepared as training prepares them, and the stages are packed as training packs
    them. No weights are read, and no GPU is needed.

    Examples:

        vl3syn mix recipes/train-demo.yaml

        vl3syn mix recipe.yaml --tokens-per-second 9000 --workers 64 --page mix.html
    """
    refuse_credentials(recipe, "RECIPE")
    refuse_credentials(page or "", "--page")
    from model.training.console import show_log
    from model.training.forecast import forecast
    from model.training.recipe import load_recipe
    from model.training.source_sample import Measurer
    from model.training.stage_plan import plan_stages
    from pipeline.commands.mix_table import Prices, mix_json, print_mix

    show_log()
    checked = load_recipe(recipe)
    names = [each.name for each in checked.stages]
    for name in stage or ():
        if name not in names:
            raise UserError(f"--stage {name}: the recipe has no such stage{suggest(name, names)}")
    if page is not None:
        _check_page(page)
    for each in checked.stages:
        each.check_workers(workers)
    plans = [plan for plan in plan_stages(checked) if not stage or plan.stage.name in stage]
    measurer = Measurer(checked.threads)
    begin, forecasts = time.monotonic(), []
    try:
        for number, plan in enumerate(plans, 1):
            # A stage that needs less time than its share leaves the rest to those after it.
            deadline = math.inf if limit is None else _deadline(begin + limit, len(plans) - number)
            forecasts.append(forecast(plan, measurer, sample, deadline=deadline, progress=_progress(plan.stage.name)))
    finally:
        measurer.close()
    prices = Prices(workers, tokens_per_second, tflops)
    if page is not None:
        _write_page(page, checked.name, forecasts, _views(plans, forecasts))
    if json_:
        from pipeline.commands import output

        output.print_json(mix_json(recipe, sample, forecasts, prices, page))
    else:
        print_mix(forecasts, prices)


def _deadline(end: float, later: int) -> float:
    """Return when measuring of a stage ends, if `later` stages come after it."""
    now = time.monotonic()
    return now + max(end - now, 0.0) / (later + 1)


def _progress(stage: str) -> Progress:
    """Return a function that prints, at most every few seconds, how many samples are measured."""
    from pipeline.commands import output

    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS and done < total:
            last = time.monotonic()
            output.say(f"{stage}: {done:,} of {total:,} samples read")

    return progress


def _check_page(page: str) -> None:
    """Report a missing package and a file that cannot be written before the samples are read."""
    from pipeline.reporting.page import check_target, environment

    check_target(page)
    environment()


def _views(plans: Sequence[StagePlan], forecasts: Sequence[StageForecast]) -> list[SourceView]:
    """Return some samples of each source, as the last stage that reads it prepares them. None is read yet."""
    from model.training.preview import preview
    from pipeline.reporting.mix import SourceView

    last = {}
    for plan, seen in zip(plans, forecasts, strict=True):
        for number, source in enumerate(seen.sources):
            rows = source.shown[:SHOWN]
            last[source.name] = SourceView(seen.name, source.name, len(rows), preview(plan, number, rows))
    return list(last.values())


def _write_page(page: str, name: str, forecasts: Sequence[StageForecast], views: Sequence[SourceView]) -> None:
    from pipeline.commands import output
    from pipeline.reporting.mix import mix_page
    from pipeline.reporting.page import write

    length = write(page, mix_page(name, forecasts, views))
    shown = sum(view.count for view in views)
    output.say(f"mix: {shown:,} samples of {len(views):,} sources: {page}, {length / 1e6:,.1f} MB")
