"""Read some columns of a pool's own Parquet files at given rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.arrow_types import check_names
from core.errors import BadSampleError
from core.parquet import BAD_PARQUET, BombError, Parquet
from manifests.storage import Folder

ROWS_AT_ONCE = 8192


def columns_at(root: Folder, path: str, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
    """Read some columns of one of the pool's Parquet files at the given rows.

    Only the row groups with those rows, and only these columns, are read.

    Args:
        root: The folder that `path` is relative to.
        path: The file.
        names: The columns; one that is missing from the file is returned as nulls.
        rows: Row numbers, in any order; they may repeat.

    Returns:
        A table with the columns in the order of `names` and the rows in the order of `rows`.

    Raises:
        BadSampleError: The file is damaged, or has fewer rows.
        OSError: Disk or network failure, or a damaged page: Arrow does not distinguish them.
    """
    with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
        try:
            return _at_rows(Parquet(file), names, rows)
        except BAD_PARQUET as error:
            kind = OSError if isinstance(error, OSError) else BadSampleError
            raise kind(f"{path}: {' '.join(str(error).split())[:300]}") from error


def _at_rows(parquet: Parquet, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
    ends = np.cumsum(np.array(parquet.row_groups, np.int64))
    if rows.size and not 0 <= rows.min() <= rows.max() < ends[-1]:
        raise BadSampleError(f"has {ends[-1]:,} rows, and row {rows.max():,} is asked for; index the pool again")
    check_names(parquet.schema, names)
    columns = [name for name in dict.fromkeys(names) if parquet.schema.get_field_index(name) >= 0]
    if not rows.size or not columns:
        return pa.table([pa.nulls(rows.size)] * len(names), names=list(names))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    pieces, size = [], 0
    for group in np.unique(np.searchsorted(ends, rows, side="right")).tolist():
        start = int(ends[group]) - parquet.row_groups[group]
        for batch in parquet.batches(columns, ROWS_AT_ONCE, [group]):
            here = slice(*np.searchsorted(ordered, [start, start + batch.num_rows]))
            places = pa.array(ordered[here] - start)
            pieces.append(pa.table([without_dictionary(batch[name].take(places)) for name in columns], names=columns))
            start += batch.num_rows
            size += pieces[-1].nbytes
            if size > parquet.most_text:
                raise BombError(f"decompression bomb: {rows.size:,} rows of more than {parquet.most_text:,} bytes")
    joined = pa.concat_tables(pieces, promote_options="permissive").take(pa.array(np.argsort(order)))
    return pa.table([joined[n] if n in columns else pa.nulls(rows.size) for n in names], names=list(names))


def without_dictionary(column: pa.Array) -> pa.Array:
    """Decode a dictionary column, so that tables of different batches can be concatenated."""
    return column.dictionary.take(column.indices) if pa.types.is_dictionary(column.type) else column
