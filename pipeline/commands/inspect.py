"""The commands that only read a run: `funnel`, `sweep`, `explain`, `groups`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError
from pipeline.commands.options import JsonOption, RunArgument

if TYPE_CHECKING:
    from manifests import Run

view_app = typer.Typer()


@view_app.command()
def funnel(run_: RunArgument, json_: JsonOption = False) -> None:
    """Show how many rows each stage saw, kept, dropped and failed on, with reasons."""
    from manifests import funnel as count
    from pipeline.commands import output

    counted = count(_opened(run_))
    output.print_json(counted.as_json()) if json_ else output.print_funnel(counted)


@view_app.command()
def sweep(
    run_: RunArgument,
    axes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STAGE.RULE=VALUES]...",
            help="Thresholds: aspect_ratio.max=1.5,2,2.5 or, for 7 values from 1.5 to 3, aspect_ratio.max=1.5:3:7",
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show how many rows other thresholds would keep, for every combination. No stage is computed.

    `to_compute` counts rows that would need computing first: facts are missing, or a duplicate would be dropped.
    Without thresholds: the distribution of the stored scores, to choose thresholds by.
    """
    import polars as pl

    from manifests.sweep import spread
    from manifests.sweep import sweep as try_all
    from pipeline.commands import output

    opened = _opened(run_)
    table = try_all(opened, _axes(axes)) if axes else spread(opened)
    if json_:
        output.print_json(table.to_dicts())
    else:
        rows = opened.index.scan(["id"]).select(pl.len()).collect().item()
        title = f"kept of {rows:,} rows" if axes else "stored scores"
        output.print_rows(title, table.columns, table.rows())


@view_app.command()
def explain(
    run_: RunArgument,
    key: Annotated[str, typer.Argument(help="The row: its key, shard/key, or id")],
    json_: JsonOption = False,
) -> None:
    """Show everything that is stored about one row, and why it was kept or dropped."""
    from manifests.explain import explain as account_of
    from pipeline.commands import output

    accounts = account_of(_opened(run_), key)
    if json_:
        output.print_json([a.as_json() for a in accounts])
        return
    for account in accounts:
        output.print_account(account)


@view_app.command()
def groups(
    run_: RunArgument,
    by: Annotated[str, typer.Option(help="Column of the groups: cluster, label, host, shard, …")] = "cluster",
    limit: Annotated[int, typer.Option(min=0, help="Number of groups to show, the largest first")] = 20,
    json_: JsonOption = False,
) -> None:
    """Show the sizes of groups, such as clusters, and the diversity of the images, before and after the rules."""
    from dataclasses import asdict

    from manifests.diversity import diversity
    from pipeline.commands import output

    spread = diversity(_opened(run_), by)
    largest = spread.sizes.head(limit)
    if json_:
        output.print_json(spread.as_json() | {"sizes": largest.to_dicts()})
        return
    spreads = {"reached": asdict(spread.reached), "kept": asdict(spread.kept)}
    rows = [(name.replace("_", " "), *(s[name] for s in spreads.values())) for name in spreads["kept"]]
    output.print_rows(f"groups by {by}", ("", *spreads), rows)
    output.print_rows(f"the {largest.height:,} largest of {spread.reached.groups:,}", largest.columns, largest.rows())


def _opened(url: str) -> Run:
    """Open the run, and print on stderr what its index lacks."""
    from manifests import open_run
    from manifests.indexing import index_warning
    from pipeline.commands import output

    run = open_run(url)
    if warning := index_warning(run):
        output.say(warning)
    return run


def _axes(texts: list[str]) -> dict[str, list[float]]:
    axes: dict[str, list[float]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in axes:
            raise UserError(f"{name} is given twice: list all of its values after one =")
        try:
            axes[name] = _points(values) if ":" in values else [float(v) for v in values.split(",")]
        except ValueError as error:
            raise UserError(f"{text}: give thresholds as STAGE.RULE=1,2,3 or STAGE.RULE=from:to:points") from error
    return axes


def _points(values: str) -> list[float]:
    start, stop, points = values.split(":")
    step = (float(stop) - float(start)) / max(int(points) - 1, 1)
    return [round(float(start) + i * step, 10) for i in range(int(points))]
