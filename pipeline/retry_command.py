"""`vl3syn retry`: failed rows are tried again by the next run."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.options import JsonOption, RunArgument

retry_app = typer.Typer()


@retry_app.command()
def retry(
    run_: RunArgument,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the run, or index")],
    where: Annotated[
        str | None, typer.Option(help="SQL over the stage's and the index's columns: \"error like '%context%'\"")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Have the next run try failed rows again, after what made them fail was mended. Good rows stay as they are.

    It computes nothing itself: run `vl3syn run`, or the stage's own command, afterwards.
    """
    from manifests import open_run
    from pipeline import console
    from pipeline.failed import mark

    marked = mark(open_run(run_), stage, where)
    if json_:
        console.print_json(marked.as_json())
        return
    already = f"; {marked.already:,} more it tries anyway" if marked.already else ""
    rows = "1 failed row" if marked.marked == 1 else f"{marked.marked:,} failed rows"
    title = f"{stage}: the next run tries {rows} again{already}"
    console.print_rows(title, ("rows", "error"), [(n, error) for error, n in marked.errors.items()])
