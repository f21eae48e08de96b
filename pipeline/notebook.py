"""For notebooks: images of a run's rows, as bytes and as a gallery.

run = open_run("demo/run")
kept = run.manifest().filter(pl.col("status") == "kept").sort("quality")
show(run, kept, limit=12)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from core.errors import UserError, suggest
from manifests.run import Run, open_run
from pipeline.reporting.image_bytes import ImageBytes, read_images
from pipeline.reporting.page import environment, render
from pipeline.reporting.thumbnails import thumbnails
from pipeline.reporting.tiles import DESCRIBED_BY, READ, Tile, tile

LARGEST = 1000
"""Images of a gallery, at most."""

_COLUMNS = 6  # columns of the frame that are shown, if none are named


@dataclass(frozen=True)
class Shown:
    """A gallery: a notebook shows its pictures, elsewhere it is a line of text.

    Attributes:
        tiles: The images.
        more: Whether the frame has more rows than are shown.
    """

    tiles: tuple[Tile, ...]
    more: bool

    def __repr__(self) -> str:
        missing = sum(not tile.thumbnail.uri for tile in self.tiles)
        return f"{len(self.tiles):,} images{' of more' if self.more else ''}, {missing:,} of them without a picture"

    def _repr_html_(self) -> str:
        return render("notebook.html", shown=self)


def images(run: Run | str | os.PathLike[str], rows: pl.DataFrame | pl.LazyFrame) -> Iterator[ImageBytes]:
    """Yield the encoded image of each row, read where it lies: in the pool, or among the downloaded images.

    Args:
        run: The run, or its path or URL.
        rows: A frame with the column `id`.

    Returns:
        Images in the order in which they lie in the pool, not that of `rows`; each id once. One that cannot be read has
        no `data`, and an `error`.

    Raises:
        UserError: There is no column `id`, or the run has no image with such an id.
    """
    ids = _ids(rows.lazy().select("id").collect() if "id" in rows.collect_schema() else pl.DataFrame())
    return read_images(_opened(run), ids)


def show(
    run: Run | str | os.PathLike[str],
    frame: pl.DataFrame | pl.LazyFrame,
    limit: int = 48,
    columns: Sequence[str] | None = None,
) -> Shown:
    """Show the images of a frame's first rows as a gallery, with their status and some columns.

    Args:
        run: The run, or its path or URL.
        frame: Any frame with the column `id`: the manifest, facts of a stage, what was joined or computed from them.
        limit: Number of rows to show, at most 1,000.
        columns: Columns of the frame to show; default: up to 6 of those that the index does not have.

    Returns:
        The gallery. Its HTML is complete in itself: pictures are part of it, texts are escaped.

    Raises:
        UserError: There is no column `id` or another that is named, the run has no image with such an id, or Jinja2 is
            not installed.
    """
    if not 1 <= limit <= LARGEST:
        raise UserError(f"limit must be from 1 to {LARGEST:,}, not {limit:,}")
    names = frame.collect_schema().names()
    for name in columns or ():
        if name not in names:
            raise UserError(f"the frame has no column {name!r}{suggest(name, names)}")
    environment()  # a missing package is reported before the images are read
    opened = _opened(run)
    rows = frame.lazy().head(limit + 1).collect()
    ids = _ids(rows.head(limit))
    known = (*opened.index.schema.names, *READ)
    shown = list(columns) if columns is not None else [n for n in names if n not in known][:_COLUMNS]
    stored = _stored(opened, ids, leave_out=names)
    pictures = thumbnails(opened, ids)
    tiles = (
        tile({**stored[row["id"]], **row}, pictures[row["id"]], shown) for row in rows.head(limit).iter_rows(named=True)
    )
    return Shown(tuple(tiles), rows.height > limit)


def _opened(run: Run | str | os.PathLike[str]) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the ids of a frame as a column `id`, each once."""
    if "id" not in rows.columns:
        raise UserError("the frame has no column 'id', which says which image a row is about; select it too")
    if not rows.schema["id"].is_integer() or rows["id"].null_count():
        raise UserError(f"the frame's column 'id' must hold an integer in every row; it is {rows.schema['id']}")
    return rows.select(pl.col("id").cast(pl.Int64).unique(maintain_order=True))


def _stored(run: Run, ids: pl.DataFrame, leave_out: Sequence[str]) -> dict[int, dict[str, object]]:
    """Return the columns of tiles that the frame does not have, by id."""
    names = [n for n in (*READ, *DESCRIBED_BY) if n in run.manifest_schema and n not in leave_out]
    rows = run.manifest(names, ids).collect(engine="streaming")
    return {row["id"]: row for row in rows.iter_rows(named=True)}
