"""Check a pool's settings against its first shard before anything is written; find where image and alt text are."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import pyarrow as pa

from core.arrow_types import type_name
from core.errors import BadSampleError, UserError
from core.image_header import BadImageError
from core.parquet import BAD_PARQUET, Parquet
from pipeline.pools.cells import image_column, may_encode
from pipeline.pools.listing import Listing, Pool, is_candidate
from pipeline.pools.packed import START, packed
from pipeline.pools.parquet import ImageColumns, holds_text, note_columns, parquet_rows
from pipeline.pools.rows import NOTES, TEXT_LIMIT, matching
from pipeline.pools.side_files import Note, read_note
from pipeline.pools.urls import UrlColumns

_MEMBERS = 200  # tar members that are searched for alt text
_ROWS = 16  # Parquet rows, one of which must hold an image if the column's type does not show that it holds images
_SHARDS = 64  # Parquet files that are searched for one with rows
_READ = 1 << 20  # bytes per request to an object store


def check_first_shard(pool: Pool, listing: Listing) -> Listing:
    """Return the listing with the sources of image and alt text in the first shard; they are empty if unknown.

    A Parquet file without rows is passed over, unless the pool has no other.

    Raises:
        UserError: The shard lacks columns or side files that the pool's settings name, or cannot be read safely.
    """
    shard = listing.shards[0]
    if pool.kind == "images" or shard.problem:
        return listing
    if pool.kind == "tars":
        return replace(listing, alt_text=_of_tar(pool, listing))
    name, schema = _first_with_rows(pool, listing)
    if schema is None:
        return listing
    image = ""
    try:
        names = _notes(pool, schema).get("alt_text", [])
        if pool.kind == "parquet":
            image = _image_source(pool, listing, name, schema)
    except BadSampleError as error:
        raise UserError(f"{pool.kind}: {name}: {error}") from error
    unread = [] if names else _unread(schema)
    alt_text = _line([f"the column {column!r}" for column in names], name, unread)
    return replace(listing, alt_text=alt_text, image=image)


def _first_with_rows(pool: Pool, listing: Listing) -> tuple[str, pa.Schema | None]:
    """Return name and schema of the first Parquet file that has rows, else of the first; None if it is damaged."""
    first = None
    for shard in listing.shards[:_SHARDS]:
        name = shard.path
        if pool.kind == "img2dataset":
            name = f"{name.removesuffix('.tar').removesuffix('.parquet')}.parquet"
        schema, rows = (None, 0) if shard.problem else _schema(listing, name)
        if rows or (schema is None and first is None):
            return name, schema
        first = first or (name, schema)
    assert first is not None
    return first


def _unread(schema: pa.Schema) -> list[str]:
    """Describe the columns that have a name of alt text but do not hold text."""
    names = matching(schema.names, NOTES["alt_text"])
    types = {field.name: field.type for field in schema if not holds_text(field.type)}
    return [f"the column {name!r} is {type_name(types[name])}, not text" for name in names if name in types]


def _schema(listing: Listing, name: str) -> tuple[pa.Schema | None, int]:
    """Return schema and number of rows of a Parquet file; None and 0 if it is damaged, which indexing reports later."""
    try:
        with listing.root.filesystem.open_input_file(f"{listing.root.path}/{name}") as file:
            parquet = Parquet(file)
            return parquet.schema, sum(parquet.row_groups)
    except BAD_PARQUET:
        return None, 0


def _notes(pool: Pool, schema: pa.Schema) -> Mapping[str, Sequence[str]]:
    if pool.kind == "urls":
        return UrlColumns.of(schema, pool).notes
    if pool.kind == "parquet":
        return ImageColumns.of(schema, pool.image, pool.id, pool.alt_text).notes
    return note_columns(schema, pool.alt_text)


def _image_source(pool: Pool, listing: Listing, name: str, schema: pa.Schema) -> str:
    """Return where the images are read from, as a line for the log.

    If the column's type does not show that it holds images, one of the first rows must hold one.

    Raises:
        BadImageError: There is no such column, or none of the first rows holds an image.
    """
    column = image_column(schema, pool.image)
    if may_encode(schema.field(column).type):
        with listing.root.filesystem.open_input_file(f"{listing.root.path}/{name}") as file:
            rows = list(islice(parquet_rows(file, column, pool.id, pool.alt_text, pool.max_cell), _ROWS))
        if all(row.get("error") for row in rows):
            raise BadImageError(f"column {column!r} has no image in its first {len(rows)} rows: {rows[0]['error']}")
    return f"image from the column {column!r}"


def _of_tar(pool: Pool, listing: Listing) -> str:
    shard = listing.shards[0]
    try:
        with listing.root.filesystem.open_input_file(f"{listing.root.path}/{shard.path}") as file:
            if error := packed(file.read(START)):
                raise UserError(f"tars: {shard.path}: {error}")
            file.seek(0)
            notes = _side_files(io.BufferedReader(file, _READ), pool.alt_text)
            some = [note for note in islice(notes, _MEMBERS) if note]
            if pool.alt_text is not None and not any(note.source for note in some):
                some += [note for note in notes if note and note.source][:1]
    except UserError:
        raise
    except (OSError, ValueError, tarfile.TarError):  # indexing reports it later
        return ""
    sources = [note.source for note in sorted(some, key=lambda note: note.rank) if note.source]
    if pool.alt_text is not None and not sources:
        name = pool.alt_text.lstrip(".")
        raise UserError(f"tars: {shard.path}: alt_text: no side file ends in .{name}, and no .json has that key")
    return _line(list(dict.fromkeys(sources)), shard.path)


def _side_files(file: io.BufferedReader, alt_text: str | None) -> Iterator[Note | None]:
    """Yield the note of each tar member; None for images and for members that hold no metadata."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            if is_candidate(member.name) or not member.isreg() or member.size > TEXT_LIMIT:
                yield None
            else:
                yield read_note(member.name, archive.extractfile(member).read(), alt_text)  # type: ignore[union-attr]


def _line(sources: list[str], name: str, unread: Sequence[str] = ()) -> str:
    if not sources:
        why = "; ".join(unread) or f"it has none called {', '.join(NOTES['alt_text'])}"
        return f"no alt text in {name}: {why}; the pool's setting alt_text names another"
    return f"alt text from {' or '.join(sources)}" + (" (the first that is not empty)" if len(sources) > 1 else "")
