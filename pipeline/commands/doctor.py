"""`vl3syn doctor`: what this machine has installed, and what it lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.options import JsonOption

doctor_app = typer.Typer()


@doctor_app.command()
def doctor(
    recipes: Annotated[list[str] | None, typer.Argument(help="The recipes to check; default recipes/*.yaml")] = None,
    json_: JsonOption = False,
) -> None:
    """Check what this machine has installed, and what it lacks for the recipes."""
    from pipeline.commands import output
    from pipeline.commands.findings import examine

    findings = examine(recipes)
    if json_:
        output.print_json([f.as_json() for f in findings])
    else:
        output.print_rows("doctor", ("what", "state", "found"), [(f.what, f.state, f.found) for f in findings])
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)
