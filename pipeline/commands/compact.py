"""`vl3syn compact`: many small files of a run's tables become few."""

from __future__ import annotations

from dataclasses import asdict

import typer

from pipeline.commands.options import JsonOption, RunArgument
from pipeline.commands.stopping import resumable

compact_app = typer.Typer()


@compact_app.command()
@resumable()
def compact(run_: RunArgument, json_: JsonOption = False) -> None:
    """Merge the small files of a run's tables, so that they are read faster. All rows and their provenance stay.

    Other commands may read at the same time. A replaced file is deleted after an hour, by the next job or `compact`, so
    that commands that have begun can still read it.
    """
    from manifests import open_run
    from manifests.compaction import compact as merge_files
    from pipeline.commands import output
    from pipeline.execution.planner import stored_table

    run = open_run(run_)
    names = {"index": "", **{name: name for name in run.folder.join("stages").folders()}}
    with output.working_on(run_):
        done = {name: merge_files(stored_table(run, table)) for name, table in names.items()}
    if json_:
        output.print_json([{"table": name} | asdict(compaction) for name, compaction in done.items()])
        return
    columns = ("table", "parts", "files before", "after", "MB before", "after", "deleted")
    rows = [
        (name, c.parts, c.files_before, c.files_after, c.bytes_before / 1e6, c.bytes_after / 1e6, c.deleted)
        for name, c in done.items()
    ]
    output.print_rows(run_, columns, rows)
    if waiting := sum(compaction.waiting for compaction in done.values()):
        output.say(f"{waiting:,} replaced files stay for an hour; then the next job or `vl3syn compact` deletes them")
