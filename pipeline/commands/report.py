"""`vl3syn report`: one HTML page about a run."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.options import JsonOption, RunArgument

report_app = typer.Typer()


@report_app.command()
def report(
    run_: RunArgument,
    out: Annotated[str | None, typer.Option(help="File to write: a path or URL; default RUN/report.html")] = None,
    json_: JsonOption = False,
) -> None:
    """Write one self-contained HTML page: funnel, scores with their rules, images side by side, speed, provenance.

    It opens offline in any browser, loads nothing and runs no script.
    """
    from manifests import open_run
    from manifests.indexing import index_warning
    from pipeline.commands import output
    from pipeline.reporting.page import check_target, write
    from pipeline.reporting.report import report as page_of

    run = open_run(run_)
    where = out or f"{run_.rstrip('/')}/report.html"
    check_target(where)
    if warning := index_warning(run):
        output.say(warning)
    length = write(where, page_of(run, output.say))
    if json_:
        output.print_json({"report": where, "bytes": length})
    else:
        output.say(f"report: {where}, {length / 1e6:,.1f} MB; open it in a browser")
