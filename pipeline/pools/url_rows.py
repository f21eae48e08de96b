"""Make index rows of URLs from batches of columns: one for each row of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.arrow_types import check_names, check_plain, is_amount, is_bytes, is_list, is_text, type_name
from core.image_header import BadImageError
from manifests.schemas import INDEX
from pipeline.pools.parquet_rows import holds_text, id_column, note_columns, value_of
from pipeline.pools.rows import NOTES, SIZES, TEXT_LIMIT, first_text, matching
from pipeline.pools.tables import without_dictionary

_WHOLE = r"^[0-9]{1,10}(\.0*)?$"
_SIDES = 1 << 31  # one more than the largest side that the index can store
_IDS = 1 << 63  # one more than the largest id
_NAMES = 300  # characters of column names in an error


class UrlSettings(NamedTuple):
    """The columns that the pool's settings name; None: the usual names, and no column of ids."""

    id: str | None = None
    alt_text: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class UrlColumns:
    """The columns that are read from a file.

    Attributes:
        notes: Text columns, by the index column that they fill; includes `url`.
        sizes: The columns with `width` and `height`, as far as the file has them. The first usable value counts.
        id: The column with the source's own id, or None.
    """

    notes: Mapping[str, Sequence[str]]
    sizes: Mapping[str, Sequence[str]]
    id: str | None

    @classmethod
    def of(cls, schema: pa.Schema, settings: UrlSettings) -> UrlColumns:
        """Choose the columns by the pool's settings.

        Raises:
            BadSampleError: A required column is missing or cannot be read.
        """
        notes = note_columns(schema, settings.alt_text)
        notes["url"] = url_columns(schema, settings.url)
        sizes = {ours: names for ours, theirs in SIZES.items() if (names := matching(schema.names, theirs))}
        columns = cls(notes, sizes, None if settings.id is None else id_column(schema, settings.id))
        check_plain(schema, columns.read)
        check_names(schema, columns.read)
        return columns

    @property
    def read(self) -> list[str]:
        names = [name for columns in (self.notes, self.sizes) for theirs in columns.values() for name in theirs]
        return list(dict.fromkeys([*names, self.id] if self.id else names))


def url_columns(schema: pa.Schema, url: str | None = None) -> list[str]:
    """Return the names of the columns with the URLs, best first.

    Args:
        schema: The file's schema.
        url: The column with the URLs, in any case; default the names in `NOTES`.

    Raises:
        BadImageError: There is no such column, or it does not hold text.
    """
    accepted = NOTES["url"] if url is None else (url.lower(),)
    names = (
        sorted(matching(schema.names, accepted), key=lambda name: name != url)
        if url
        else matching(schema.names, accepted)
    )
    texts = [name for name in names if holds_text(schema.field(schema.names.index(name)).type)]
    if not names:
        others = ", ".join(schema.names)
        setting = "; `url: COLUMN` in the pool names it" if url is None else ""
        raise BadImageError(f"no column {url or 'url'!r} (there are {others[:_NAMES]}){setting}")
    if not texts:
        type_ = schema.field(schema.names.index(names[0])).type
        raise BadImageError(f"column {names[0]!r} is {type_name(type_)}, not text")
    return texts


def size_line(schema: pa.Schema, columns: UrlColumns, path: str) -> str:
    """Return the line for the log that says that a file has no sizes; empty if it has."""
    types = {name: schema.field(schema.names.index(name)).type for name in chain(*columns.sizes.values())}
    if all(any(_may_be_size(types[name]) for name in columns.sizes.get(ours, ())) for ours in SIZES):
        return ""
    others = [
        f"column {name!r} is {type_name(type_)}, not numbers"
        for name, type_ in types.items()
        if not _may_be_size(type_)
    ]
    why = " and ".join(others) or "it has no columns width and height"
    return f"no sizes in {path}: {why}; they are unknown until the images are downloaded"


_COLUMNS = ("id", "key", "offset", "width", "height", *NOTES, "text_encoding", "error")
ROWS = pa.schema([INDEX.field(name) for name in _COLUMNS])


def url_rows(
    batch: pa.RecordBatch, columns: UrlColumns, start: int, errors: Mapping[int, str] | None = None
) -> pa.Table:
    """Return the index rows of a batch.

    Args:
        batch: The columns of `columns`.
        columns: What each of them is.
        start: Number of the batch's first row in the file.
        errors: Errors that reading found, by row of the batch.

    Returns:
        A table with the columns of `ROWS`: `id` (null: to be made from the row), `key`, `offset` (the row's number),
        `width` and `height` (null: unknown until the download), the columns of `NOTES`, `text_encoding`, `error`.
    """
    numbers = pa.array(np.arange(start, start + batch.num_rows))
    read = {ours: _texts(batch, columns.notes.get(ours, ())) for ours in NOTES}
    texts = {ours: text for ours, (text, _) in read.items()}
    url = texts["url"]
    no_url = pc.is_null(url).to_numpy(False)
    empty = pc.equal(url, "").fill_null(False).to_numpy(False)
    ids, bad_ids = _ids(batch, columns.id)
    (width, no_width), (height, no_height) = (_first_sides(batch, columns.sizes.get(name, ())) for name in SIZES)
    no_size = no_width | no_height
    error = np.full(batch.num_rows, None, object)
    for row in np.flatnonzero(bad_ids):
        error[row] = f"bad id: {batch[columns.id][row].as_py()} in the column {columns.id!r}"
    error[empty] = "no url: the cell is empty"
    error[no_url] = "no url: the cell is null"
    for number, text in (errors or {}).items():
        error[number] = text
    rows = {
        "id": ids,
        "key": pc.if_else(pa.array(no_url | empty), numbers.cast(pa.string()), url),
        "offset": numbers,
        "width": pa.array(width, pa.int32(), mask=no_size),
        "height": pa.array(height, pa.int32(), mask=no_size),
        **texts,
        "text_encoding": pc.coalesce(*(encoding for _, encoding in read.values())),
        "error": pa.array(error, pa.string()),
    }
    return pa.table(rows, schema=ROWS)


def urls_of(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Return the index column `url` of a batch whose columns with URLs have these names."""
    return _texts(batch, names)[0]


def _texts(batch: pa.RecordBatch, names: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """Return, for each row, the first text of these columns that is not empty, and its encoding (null for UTF-8).

    Both arrays are null if `names` is empty.
    """
    read = [_text(batch[name]) for name in names] or [(pa.nulls(batch.num_rows, pa.string()),) * 2]
    if len(read) == 1:
        return read[0]
    full = [pc.if_else(pc.equal(texts, ""), None, texts) for texts, _ in read]
    encodings = [
        pc.if_else(pc.is_valid(texts), encodings, None) for texts, (_, encodings) in zip(full, read, strict=True)
    ]
    return pc.coalesce(*full, *(texts for texts, _ in read)), pc.coalesce(*encodings)


def _text(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return a column as text, and the encodings of the texts that are not UTF-8.

    The first text of a list that is not empty counts. A text above `TEXT_LIMIT` bytes becomes null.
    """
    if is_list(column.type):
        return _by_row(column)
    data = without_dictionary(column).cast(pa.binary())
    long = pc.greater(pc.binary_length(data), TEXT_LIMIT)
    if pc.any(long).as_py():
        data = data.take(pc.if_else(long, None, pa.array(np.arange(len(data)))))
    if is_bytes(column.type) and pc.any(pc.match_substring(data, "\0")).as_py():
        return _by_row(data)  # UTF-16
    try:
        return data.cast(pa.string()), pa.nulls(len(data), pa.string())
    except pa.ArrowInvalid:
        return _by_row(data)


def _by_row(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [value_of(value) for value in column]
    read = [first_text(value) for value in values]
    return pa.array([text for text, _ in read], pa.string()), pa.array([how for _, how in read], pa.string())


def _first_sides(batch: pa.RecordBatch, names: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return width or height in pixels, the first of these columns that is usable, and a mask of missing ones."""
    sides, missing = np.ones(batch.num_rows, np.int32), np.ones(batch.num_rows, bool)
    for name in names:
        theirs, lacking = _sides(batch, name)
        sides, missing = np.where(missing, theirs, sides), missing & lacking
    return sides, missing


def _sides(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return width or height in pixels, and a mask of missing ones: not a whole number from 1 to 2³¹ - 1, set to 1."""
    column = without_dictionary(batch[name])
    if is_text(column.type):  # from CSV or JSON lines
        trimmed = pc.utf8_trim_whitespace(_text(column)[0])
        column = pc.if_else(pc.match_substring_regex(trimmed, _WHOLE), trimmed, None)
    elif not is_amount(column.type):
        column = pa.nulls(batch.num_rows)
    # Floats: pandas writes integers with missing values as floats.
    sides = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    missing = ~((sides >= 1) & (sides < _SIDES) & (sides == np.floor(sides)))
    return np.where(missing, 1, sides).astype(np.int32), missing


def _may_be_size(type_: pa.DataType) -> bool:
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    return is_amount(type_) or is_text(type_) or pa.types.is_null(type_)


def _ids(batch: pa.RecordBatch, id_: str | None) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Return the source's ids, and a mask of bad ones (null or above 63 bits). Without a column all ids are null."""
    if id_ is None:
        return pa.nulls(batch.num_rows, pa.int64()), np.zeros(batch.num_rows, bool)
    ids = batch[id_]
    if ids.type == pa.uint64():
        ids = pc.if_else(pc.less(ids, pa.scalar(_IDS, pa.uint64())), ids, None)
    return ids.cast(pa.int64()), pc.is_null(ids).to_numpy(False)
