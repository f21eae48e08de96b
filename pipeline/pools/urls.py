"""Pools of Parquet files with image URLs and metadata, the format of COYO-700M. They contain no images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.arrow_types import check_names, check_plain, is_amount, is_bytes, is_list, is_text, type_name
from core.errors import BadSampleError
from core.image_header import BadImageError
from core.parquet import BAD_PARQUET, BombError, Parquet
from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.pools.base import image_id, index_table
from pipeline.pools.listing import Listing, Shard, shard_table, shards_of
from pipeline.pools.parquet_rows import damage, id_column, note_columns, unread, value_of
from pipeline.pools.rows import NOTES, SIZES, TEXT_LIMIT, Row, first_text, matching, on_disk
from pipeline.pools.tables import ROWS_AT_ONCE, TABLES, TablePool, check_first_table, without_dictionary

_NO_SIZE = "no size: the metadata has no width and height for this row"
_WHOLE = r"^[0-9]{1,10}(\.0*)?$"
_SIDES = 1 << 31  # one more than the largest side that the index can store
_IDS = 1 << 63  # one more than the largest id


class UrlTables(TablePool):
    """A glob of Parquet files with image URLs and metadata, such as COYO-700M; they contain no images."""

    has_images: ClassVar = False
    like_shards: ClassVar = (*TABLES, ".txt", ".csv", ".tsv", ".json", ".jsonl", ".txt.gz", ".csv.gz", ".jsonl.gz")

    def index(self, root: Folder, shards: pa.Table, passed_over: Counter[str] | None = None) -> pa.Table:
        """See `Pool.index`. A shard has millions of rows, so they stay in columns."""
        return pa.concat_tables([INDEX.empty_table(), *self._tables(root, shards)])

    def check_first(self, listing: Listing) -> Listing:
        return check_first_table(
            listing, self.kind, lambda _, schema: (UrlColumns.of(schema, self.id, self.alt_text).notes, "")
        )

    def _tables(self, root: Folder, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards_of(shards):
            if shard.problem:
                yield self.error_rows(shard_table([shard]), shard.problem, retry=False)
                continue
            try:
                urls, broken = read_urls(root, shard.path, self.id, self.alt_text)
            except OSError as error:
                yield _row_of(shard, self.unreadable_row(shard, error))
                continue
            columns = dict(zip(urls.column_names, urls.columns, strict=True))
            columns["id"] = _with_hashes(urls, shard.identity)
            for name, value in (("shard", shard.path), ("shard_bytes", shard.bytes), ("retry", False)):
                columns[name] = pa.repeat(pa.scalar(value, INDEX.field(name).type), urls.num_rows)
            whole = [columns.get(f.name, pa.nulls(urls.num_rows, f.type)) for f in INDEX]
            yield pa.table(whole, schema=INDEX)
            if broken:
                yield _row_of(shard, {"key": "", "error": broken})


def _row_of(shard: Shard, row: Row) -> pa.Table:
    """Return a row about a shard as a whole."""
    about = {"id": image_id(shard.identity, ""), "shard": shard.path, "shard_bytes": shard.bytes, "retry": False}
    return index_table([about | row])


def _with_hashes(urls: pa.Table, identity: str) -> pa.ChunkedArray | pa.Array:
    """Return the source's ids. A missing id is a hash of the row number, since URLs may repeat."""
    if not urls["id"].null_count:
        return urls["id"]
    ids = zip(urls["id"].to_pylist(), urls["offset"].to_pylist(), strict=True)
    return pa.array([image_id(identity, str(number)) if id_ is None else id_ for id_, number in ids], pa.int64())


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
    def of(cls, schema: pa.Schema, id_: str | None, alt_text: str | None) -> UrlColumns:
        """Choose the columns by the pool's settings.

        Raises:
            BadSampleError: A required column is missing or cannot be read.
        """
        notes = note_columns(schema, alt_text)
        notes["url"] = url_columns(schema)
        sizes = {ours: names for ours, theirs in SIZES.items() if (names := matching(schema.names, theirs))}
        columns = cls(notes, sizes, None if id_ is None else id_column(schema, id_))
        check_plain(schema, columns.read)
        check_names(schema, columns.read)
        return columns

    @property
    def read(self) -> list[str]:
        names = [name for columns in (self.notes, self.sizes) for theirs in columns.values() for name in theirs]
        return list(dict.fromkeys([*names, self.id] if self.id else names))


def read_urls(root: Folder, path: str, id_: str | None, alt_text: str | None) -> tuple[pa.Table, str | None]:
    """Read a Parquet file of URLs; return its index rows, and an error if it is damaged or empty.

    Rows stay in columns: a file of URLs has millions of rows, too many for one dict each.

    Returns:
        A table with one row per row of the file: `id` (null: to be made from the row number), `key`, `offset` (the row
        number), `width`, `height`, the columns of `NOTES`, `text_encoding`, `error`. And the error, or None.
    """
    tables, number, size, broken = [_ROWS.empty_table()], 0, 0, None
    with on_disk(root, path) as file:
        try:
            parquet = Parquet(file)
            try:
                columns = UrlColumns.of(parquet.schema, id_, alt_text)
            except BadSampleError as error:
                return _ROWS.empty_table(), unread(error, parquet)
            for batch in parquet.batches(columns.read, ROWS_AT_ONCE):
                tables.append(_rows(batch, columns, number))
                number += batch.num_rows
                size += tables[-1].nbytes
                if size > parquet.most_text:
                    raise BombError(f"decompression bomb: {number:,} rows of {size:,} bytes")
        except BAD_PARQUET as error:
            broken = f"broken Parquet: {damage(error)}; {number:,} rows were read before it"
    if not number and broken is None:
        broken = "no images: a Parquet file without rows"
    return pa.concat_tables(tables), broken


def url_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns with the URLs, best first.

    Raises:
        BadImageError: There is no such column, or it does not hold text.
    """
    names = matching(schema.names, NOTES["url"])
    if not names:
        raise BadImageError(f"no column 'url' (there are {', '.join(schema.names)})")
    texts = note_columns(schema).get("url")
    if not texts:
        type_ = schema.field(schema.names.index(names[0])).type
        raise BadImageError(f"column {names[0]!r} is {type_name(type_)}, not text")
    return texts


_COLUMNS = ("id", "key", "offset", "width", "height", *NOTES, "text_encoding", "error")
_ROWS = pa.schema([INDEX.field(name) for name in _COLUMNS])


def _rows(batch: pa.RecordBatch, columns: UrlColumns, start: int) -> pa.Table:
    """Return the index rows of a batch whose first row is row `start` of the file."""
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
    error[no_size] = _no_size(batch.schema, columns)
    for row in np.flatnonzero(bad_ids):
        error[row] = f"bad id: {batch[columns.id][row].as_py()} in the column {columns.id!r}"
    error[empty] = "no url: the cell is empty"
    error[no_url] = "no url: the cell is null"
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
    return pa.table(rows, schema=_ROWS)


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


def _no_size(schema: pa.Schema, columns: UrlColumns) -> str:
    types = {name: schema.field(name).type for names in columns.sizes.values() for name in names[:1]}
    others = [f"column {n!r} is {type_name(t)}" for n, t in types.items() if not _may_be_size(t)]
    return f"no size: {' and '.join(others)}, not numbers" if others else _NO_SIZE


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
