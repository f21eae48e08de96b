"""`vl3syn look`: a gallery of any selection of images, as one HTML page."""

from __future__ import annotations

from typing import Annotated

import typer

from core.errors import UserError
from pipeline.commands.options import JsonOption, RunArgument

look_app = typer.Typer()

LARGEST = 1000
"""Images of a page, at most."""


@look_app.command()
def look(
    run_: RunArgument,
    where: Annotated[
        str | None,
        typer.Option(help="Only these rows, by SQL over the manifest: \"aesthetic < 4 and status = 'kept'\""),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort by; rows without a value come last")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="The largest value first")] = False,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST, help="Number of rows to show")] = 100,
    random: Annotated[bool, typer.Option("--random", help="A random choice instead of the first ones")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the random choice, which it implies; default 0")
    ] = None,
    column: Annotated[list[str] | None, typer.Option(help="Show this column too; can be repeated")] = None,
    out: Annotated[str | None, typer.Option(help="File to write: a path or URL; default RUN/look.html")] = None,
    json_: JsonOption = False,
) -> None:
    """Write a page with the rows that fit a condition: picture, status, reason, and the columns of the condition.

    The page opens offline in any browser, loads nothing and runs no script.
    """
    from dataclasses import asdict

    from manifests import open_run
    from manifests.indexing import index_warning
    from manifests.selection import Selection
    from pipeline.commands import output
    from pipeline.reporting.look import look as look_at
    from pipeline.reporting.page import check_target, environment, write

    if descending and sort is None:
        raise UserError("--descending: name the column to sort by with --sort")
    run = open_run(run_)
    where_to = out or f"{run_.rstrip('/')}/look.html"
    check_target(where_to)
    if warning := index_warning(run):
        output.say(warning)
    environment()  # a missing package is reported before the images are read
    seed = 0 if random and seed is None else seed
    seen = look_at(run, Selection(where, sort, descending, limit, seed), column or ())
    length = write(where_to, seen.page())
    tiles = seen.gallery.tiles
    if json_:
        images = [{n: v for n, v in asdict(tile).items() if n != "thumbnail"} for tile in tiles]
        for image, tile in zip(images, tiles, strict=True):
            image |= {"values": dict(tile.values), "texts": dict(tile.texts), "missing": tile.thumbnail.reason or None}
        output.print_json({"page": where_to, "bytes": length, "fitting": seen.fitting, "images": images})
        return
    missing = sum(not tile.thumbnail.uri for tile in tiles)
    unshown = f"; {missing:,} without a picture, with the reason" if missing else ""
    output.say(
        f"look: {len(tiles):,} of {seen.fitting:,} {seen.noun}s that fit{unshown}: {where_to}, {length / 1e6:,.1f} MB"
    )
