"""`vl3syn compare`: what moved between two runs, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import JsonOption

if TYPE_CHECKING:
    from manifests.comparison import Comparison, StageChange

compare_app = typer.Typer()

_NOWHERE = "–"


@compare_app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="The first run directory")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The second one: another recipe, or a grown pool")],
    limit: Annotated[int, typer.Option(min=0, help="Ids to print for each move; with --json as many as you want")] = 3,
    json_: JsonOption = False,
) -> None:
    """Print which images ended elsewhere in the second run, with both reasons, and what differs. Computes nothing.

    Examples:

        vl3syn compare RUN OTHER

        vl3syn compare RUN OTHER --limit 100 --json
    """
    from dataclasses import asdict

    from manifests import open_run
    from manifests.comparison import compare as compared
    from manifests.indexing import index_warning
    from pipeline.commands import output

    runs = open_run(first), open_run(second)
    for run in runs:
        if warning := index_warning(run):
            output.say(warning)
    result = compared(*runs, examples=limit)
    output.print_json(asdict(result)) if json_ else _print(result)


def _print(result: Comparison) -> None:
    from pipeline.commands import output

    if result.other_pool:
        output.say("the recipes name different pools: only images with the same id are compared")
    if result.stages:
        output.print_rows("what differs", ("stage", "difference"), [(c.stage, _difference(c)) for c in result.stages])
    moves = [
        (move.rows, str(move.before or _NOWHERE), str(move.after or _NOWHERE), move.why, ", ".join(map(str, move.ids)))
        for move in result.moves
    ]
    (rows, more_rows), (kept, more_kept) = result.rows, result.kept
    counted = f"{rows:,} rows, {kept:,} kept → {more_rows:,} rows, {more_kept:,} kept"
    title = f"{counted}; {result.same:,} ended where they were"
    if not moves:
        output.out.print(title, style="bold", markup=False)
        return
    output.print_rows(title, ("rows", "first run", "second run", "why", "such as"), moves)


def _difference(change: StageChange) -> str:
    if change.only_in:
        return f"only in the {change.only_in} run"
    parts = [f"{name}: {old!r} → {new!r}" for name, (old, new) in change.settings.items()]
    parts += [f"rule {name}: {old!r} → {new!r}" for name, (old, new) in change.rules.items()]
    if change.facts:
        parts.append(f"other facts: {change.facts[0]} → {change.facts[1]}")
    return "\n".join(parts)
