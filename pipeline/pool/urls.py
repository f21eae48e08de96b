"""Parquet files of image URLs with what is told about each, as COYO-700M is published; there are no images yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.image_header import BadImageError
from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.pool.listing import Shard
from pipeline.pool.parquet import BAD_PARQUET, damage, id_column, is_text
from pipeline.pool.rows import on_disk

ALT_TEXTS = ("alt_text", "text", "caption")
"""Columns with the text that came with the image; the first that has one counts."""

ROWS_AT_ONCE = 8192

_SIZES = ("width", "height")
_NO_SIZE = "no size: the metadata has no width and height for this row"
_SIDES = 1 << 31  # one more than the largest side that the index can hold
_IDS = 1 << 63  # one more than the largest id


def read_urls(root: Folder, shard: Shard, id_: str | None) -> tuple[pa.Table, str | None]:
    """The rows of a Parquet file, and what is wrong where it breaks off.

    They are columns all the way: a file of URLs has millions of rows, too many for a dict each.

    Returns:
        Columns of the index, one row per row: `id` (null where it is to be made from the row number), `key` and `url`,
        `offset` (the row number), `width`, `height`, `alt_text`, `sha256`, `error`. The text is an error or None.
    """
    tables, number, broken = [_ROWS.empty_table()], 0, None
    with on_disk(root, shard.path) as file:
        try:
            for batch in _batches(pq.ParquetFile(file), id_):
                tables.append(_rows(batch, id_, number))
                number += batch.num_rows
        except BAD_PARQUET as error:
            broken = f"broken Parquet: {damage(error)}; {number:,} rows were read before it"
    if not number and broken is None:
        broken = "no images: a Parquet file without rows"
    return pa.concat_tables(tables), broken


def url_column(schema: pa.Schema) -> str:
    """The column with the URLs.

    Raises:
        BadImageError: There is none, or it holds no text.
    """
    if "url" not in schema.names:
        raise BadImageError(f"no column 'url' (there are {', '.join(schema.names)})")
    if not any(f.name == "url" and is_text(f.type) for f in schema):
        raise BadImageError(f"column 'url' is {schema.field(schema.names.index('url')).type}, not text")
    return "url"


def pool_columns(root: Folder, path: str, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
    """Columns of one of the pool's Parquet files at some of its rows.

    Only the row groups that hold those rows are read, and of them only these columns.

    Args:
        root: What `path` is relative to.
        path: The file.
        names: The columns wanted; one that the file does not have comes as nulls.
        rows: Row numbers, in any order, also repeated.

    Returns:
        The columns in the order of `names`, the rows in that of `rows`.

    Raises:
        ValueError: The file is damaged, or has not so many rows.
        OSError: The disk, the network, or a damaged page, which Arrow does not tell apart.
    """
    with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
        try:
            return _at_rows(pq.ParquetFile(file, pre_buffer=True), names, rows)
        except BAD_PARQUET as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(f"{path}: {' '.join(str(error).split())[:300]}") from error


def _at_rows(parquet: pq.ParquetFile, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
    sizes = np.array([parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)], np.int64)
    ends = np.cumsum(sizes)
    if rows.size and not 0 <= rows.min() <= rows.max() < sizes.sum():
        raise ValueError(f"has {sizes.sum():,} rows, and row {rows.max():,} is asked for; index the pool again")
    groups, which = np.unique(np.searchsorted(ends, rows, side="right"), return_inverse=True)
    there = [name for name in dict.fromkeys(names) if parquet.schema_arrow.get_field_index(name) >= 0]
    if not groups.size or not there:
        return pa.table([pa.nulls(rows.size)] * len(names), names=list(names))
    read = parquet.read_row_groups(groups.tolist(), columns=there)
    skipped = ends[groups] - np.cumsum(sizes[groups])  # rows in front of each group that are in no group read
    places = pa.array(rows - skipped[which])
    found = {name: _plain(read[name].take(places)) for name in there}
    return pa.table([found.get(name, pa.nulls(rows.size)) for name in names], names=list(names))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary's values, so that one file's rows go together with another's."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


_ROWS = pa.schema(
    [
        INDEX.field(n)
        for n in ("id", "key", "offset", "width", "height", "sha256", "url", "alt_text", "license", "error")
    ]
)


def _batches(parquet: pq.ParquetFile, id_: str | None) -> Iterator[pa.RecordBatch]:
    schema = parquet.schema_arrow
    wanted = [url_column(schema), *(n for n in _SIZES if n in schema.names)]
    wanted += [f.name for f in schema if f.name in ("sha256", "license", *ALT_TEXTS) and is_text(f.type)]
    if id_ is not None:
        wanted.append(id_column(schema, id_))
    return parquet.iter_batches(ROWS_AT_ONCE, columns=list(dict.fromkeys(wanted)))  # type: ignore[no-any-return]


def _rows(batch: pa.RecordBatch, id_: str | None, start: int) -> pa.Table:
    """The rows of a batch whose first row is the file's row `start`."""
    numbers = pa.array(np.arange(start, start + batch.num_rows))
    url = _texts(batch, "url")
    no_url = pc.is_null(url).to_numpy(False)
    empty = pc.equal(url, "").fill_null(False).to_numpy(False)
    ids, bad_ids = _ids(batch, id_)
    (width, no_width), (height, no_height) = (_sides(batch, name) for name in _SIZES)
    no_size = no_width | no_height
    error = np.full(batch.num_rows, None, object)
    error[no_size] = _NO_SIZE
    for row in np.flatnonzero(bad_ids):
        error[row] = f"bad id: {batch[id_][row].as_py()} in the column {id_!r}"
    error[empty] = "no url: the cell is empty"
    error[no_url] = "no url: the cell is null"
    columns = {
        "id": ids,
        "key": pc.if_else(pa.array(no_url | empty), numbers.cast(pa.string()), url),
        "offset": numbers,
        "width": pa.array(width, pa.int32(), mask=no_size),
        "height": pa.array(height, pa.int32(), mask=no_size),
        "sha256": _texts(batch, "sha256"),
        "url": url,
        "alt_text": pc.coalesce(*(_texts(batch, name) for name in ALT_TEXTS)),
        "license": _texts(batch, "license"),
        "error": pa.array(error, pa.string()),
    }
    return pa.table(columns, schema=_ROWS)


def _texts(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of text, nulls if there is none. Bytes that are not UTF-8 are written out: no column can hold them."""
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    data = batch[name].cast(pa.binary())
    try:
        return data.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [None if value is None else value.decode("utf-8", "backslashreplace") for value in data.to_pylist()]
        return pa.array(texts, pa.string())


def _sides(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Width or height in pixels, and where there is none: 1 where the cell is not a whole number from 1 to 2³¹ - 1."""
    column = batch[name] if name in batch.schema.names else pa.nulls(batch.num_rows)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        column = pa.nulls(batch.num_rows)
    # Floats, since that is what pandas makes of integers where some are missing.
    sides = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    missing = ~((sides >= 1) & (sides < _SIDES) & (sides == np.floor(sides)))
    return np.where(missing, 1, sides).astype(np.int32), missing


def _ids(batch: pa.RecordBatch, id_: str | None) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """The source's own ids, and where they are no ids: null or above 63 bits. Without such a column all are null."""
    if id_ is None:
        return pa.nulls(batch.num_rows, pa.int64()), np.zeros(batch.num_rows, bool)
    ids = batch[id_]
    if ids.type == pa.uint64():
        ids = pc.if_else(pc.less(ids, pa.scalar(_IDS, pa.uint64())), ids, None)
    return ids.cast(pa.int64()), pc.is_null(ids).to_numpy(False)
