"""`vl3syn review`: a page on which people mark captions, and their marks as columns of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import JsonOption, RunArgument
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from manifests.review_marks import Counted, Mark
    from manifests.run import Run

review_app = typer.Typer()

LARGEST = 1000
"""Images of a page, at most."""

_FOLDER = "review"


@review_app.command()
@resumable()
def review(
    run_: RunArgument,
    rows: Annotated[int, typer.Option(min=1, max=LARGEST, help="Number of images to draw")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw")] = 0,
    published: Annotated[
        str | None, typer.Option(help="The publication that is drawn from; default RUN/shards, else what the run keeps")
    ] = None,
    out: Annotated[str | None, typer.Option(help="File to write: a path or URL; default RUN/review.html")] = None,
    marks: Annotated[
        list[str] | None, typer.Option(help="Write no page: read the marks that pages saved; can be repeated")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write a page with captions beside random images, for people to mark; or read their marks into the run.

    The page opens offline in any browser and sends nothing. Its buttons save a file, which --marks reads: the stage
    `review` then has the marks, for rules and for `look --where`.

    Examples:

        vl3syn review RUN --rows 200

        vl3syn review RUN --marks marks.json
    """
    from manifests import open_run

    run, here = open_run(run_), run_.rstrip("/")
    if marks:
        _read(run, run_, marks, json_)
    else:
        if published:
            _refuse_unpublished(published)
        _write(run, out or f"{here}/review.html", published or f"{here}/shards", rows, seed, json_)


def _refuse_unpublished(published: str) -> None:
    """Refuse a folder that the user has named and that has no publication."""
    from manifests.storage import Folder
    from pipeline.publishing.publication import stored_publication

    stored_publication(Folder.at(published), published)


def _write(run: Run, where: str, published: str, rows: int, seed: int, json_: bool) -> None:
    from manifests.storage import Folder
    from pipeline.commands import output
    from pipeline.reporting.page import check_target, environment, write
    from pipeline.reporting.review import review as draw

    check_target(where)
    environment()  # a missing package is reported before the images are read
    drawn = draw(run, Folder.at(published), rows, seed)
    length = write(where, drawn.page())
    if json_:
        output.print_json({"page": where, "bytes": length, "of": drawn.drawn_from, "ids": [r.id for r in drawn.rows]})
        return
    output.say(f"review: {len(drawn.rows):,} of {drawn.drawn_from:,} images: {where}, {length / 1e6:,.1f} MB")


def _read(run: Run, url: str, paths: list[str], json_: bool) -> None:
    import hashlib
    from dataclasses import asdict

    from core.errors import UserError, reading
    from manifests import open_run
    from manifests.review_marks import LARGEST as LARGEST_FILE
    from manifests.review_marks import count_marks, counting, parse_marks
    from pipeline.commands import output
    from pipeline.commands.stage import set_stages

    given = {}
    for path in paths:
        with reading(path), open(path, "rb") as file:
            given[path] = file.read(LARGEST_FILE + 1)
    parsed = [mark for path, data in given.items() for mark in parse_marks(data, path)]
    if not parsed:
        raise UserError(f"{paths[0]}: has no marks: mark images on the page, and save again")
    _refuse_foreign(run, parsed, paths)
    folder = run.folder.join(_FOLDER)
    with output.working_on(url):
        for data in given.values():
            folder.write(f"{hashlib.sha256(data).hexdigest()[:32]}.marks", data)
        stored = [(file.base_name, folder.read(file.base_name)) for file in folder.files()]
        all_marks = counting(
            mark
            for name, data in stored
            if name.endswith(".marks")
            for mark in parse_marks(data, f"{folder.path}/{name}")
        )
        set_stages(url, [{"stage": "review"}])
        _store(open_run(url), all_marks)
    counted = count_marks(all_marks)
    output.print_json(asdict(counted)) if json_ else _print(counted)


def _refuse_foreign(run: Run, marks: list[Mark], paths: list[str]) -> None:
    """Refuse marks of images that the run does not have."""
    import polars as pl

    from core.errors import UserError

    ids = pl.LazyFrame({"id": [mark.id for mark in marks]}, {"id": pl.Int64}).unique()
    foreign = ids.join(run.index.scan(["id"]), on="id", how="anti").collect(engine="streaming")
    if foreign.height:
        raise UserError(
            f"{', '.join(paths)}: {foreign.height:,} marked images are not in {run.url}, such as "
            f"{foreign['id'][0]}: read the marks into the run whose page was marked"
        )


def _store(run: Run, marks: list[Mark]) -> None:
    """Store marks as rows of the stage `review`, newer than those before."""
    import pyarrow as pa

    from filters.review import Review
    from manifests.review_marks import review_columns
    from manifests.run import stage_folder
    from manifests.schemas import table_schema
    from manifests.tables import Table

    entry = next(entry for entry in run.recipe["stages"] if entry["stage"] == Review.name)
    table = Table(stage_folder(run.folder, entry["table"]), table_schema(Review.writes))
    columns = review_columns(marks)
    count = len(columns["id"])
    empty = {"error": pa.nulls(count, pa.string()), "retry": pa.array([False] * count)}
    table.append(pa.table({**columns, **empty}), table.next_writer(), {"stage": Review.name, "marks": len(marks)})


def _print(counted: Counted) -> None:
    from pipeline.commands import output

    people = "person" if counted.reviewers == 1 else "people"
    rows = [
        (mark, share.images, f"{share.share:.1%}", f"{share.low:.1%} – {share.high:.1%}")
        for mark, share in counted.shares.items()
    ]
    title = f"{counted.images:,} images marked by {counted.reviewers:,} {people}"
    output.print_rows(title, ("mark", "images", "share", "95 % interval (Wilson)"), rows)
    if counted.pairs:
        agreed = f"{counted.agreeing:,} of {counted.pairs:,} ({counted.agreeing / counted.pairs:.1%})"
        output.say(f"agreement: two people who marked the same image gave the same mark in {agreed}")
