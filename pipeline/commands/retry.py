"""`vl3syn retry`: mark failed rows, so that the next run retries them."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.options import JsonOption, RunArgument
from pipeline.commands.stopping import resumable

retry_app = typer.Typer()


@retry_app.command()
@resumable()
def retry(
    run_: RunArgument,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the run, or `index`")],
    where: Annotated[
        str | None,
        typer.Option(help="Only these rows, by SQL over the columns of stage and manifest: \"error like '%context%'\""),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Mark failed rows, so that the next run computes them again. Other rows stay unchanged.

    This command computes nothing: afterwards run `vl3syn run`, or the command of the stage.
    """
    from manifests import open_run
    from manifests.indexing import refuse_unfinished
    from pipeline.commands import output
    from pipeline.execution.failed import mark

    run = open_run(run_)
    refuse_unfinished(run)
    with output.working_on(run_):
        marked = mark(run, stage, where)
    if json_:
        output.print_json(marked.as_json())
        return
    if not marked.marked:
        rows = f"the {marked.already:,} failed rows{' that fit' if where else ''}"
        print(f"{stage}: the next run tries {rows} again anyway")
        return
    already = f"; {marked.already:,} more it tries anyway" if marked.already else ""
    rows = "1 failed row" if marked.marked == 1 else f"{marked.marked:,} failed rows"
    title = f"{stage}: the next run tries {rows} again{already}"
    output.print_rows(title, ("rows", "error"), [(n, error) for error, n in marked.errors.items()])
