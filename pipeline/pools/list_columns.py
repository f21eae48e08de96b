"""Arrow columns of lists in text form: those that the index needs, and `pool.X` at some of the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.arrow_types import check_names
from core.errors import BadSampleError
from manifests.storage import Folder
from pipeline.pools.text_lists import BAD_LIST, BadRow, ListRow, TextList, form_of
from pipeline.pools.texts import decoded, octets
from pipeline.pools.url_rows import UrlColumns, UrlSettings, url_columns, urls_of

_ID = re.compile(r"\s*-?[0-9]{1,19}\s*", re.ASCII)
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,18})", re.ASCII)
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf", re.ASCII)
_MISSING = frozenset(("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None"))
"""Texts that stand for a missing number."""


def list_schema(names: Iterable[str], id_: str | None) -> pa.Schema:
    """Return the types that columns of a list have for the index: all are texts, but for the column of ids."""
    usable = [name for name in names if name == octets(name).decode("utf-8", "replace")]
    return pa.schema([(name, pa.int64() if name == id_ else pa.string()) for name in usable])


def index_batch(rows: Sequence[ListRow], columns: UrlColumns) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Return the columns that the index needs, null for bad rows; and the errors of rows, by their number."""
    errors = {number: row.error for number, row in enumerate(rows) if isinstance(row, BadRow)}
    good: list[Mapping[str, Any]] = [{} if isinstance(row, BadRow) else row for row in rows]
    sizes = {name for names in columns.sizes.values() for name in names}
    arrays: dict[str, pa.Array] = {"": pa.nulls(len(rows))}  # so that a batch of bad rows has their number
    for name in columns.read:
        values = [row.get(name) for row in good]
        if name == columns.id:
            ids = [_id(value) for value in values]
            bad = [number for number, id_ in enumerate(ids) if id_ is None]
            errors = {n: f"bad id: {_short(values[n])} in the column {name!r}" for n in bad} | errors
            arrays[name] = pa.array(ids, pa.int64())
        elif name in sizes:
            arrays[name] = pa.array([_side(value) for value in values], pa.string())
        else:
            arrays[name] = _texts([_first_text(value) for value in values])
    return pa.RecordBatch.from_pydict(arrays), errors


def list_columns_at(
    root: Folder, path: str, names: Sequence[str], rows: npt.NDArray[np.int64], settings: UrlSettings
) -> tuple[pa.Table, pa.Array]:
    """Read some columns of a list in text form at the given rows, as `tables.columns_at` does of a Parquet file.

    The whole list is read each time. A column holds numbers if all of its values in the list are numbers, or texts of
    numbers or for missing ones; a column of JSON's booleans, booleans. All others hold texts; values of JSON that are
    no texts are written as JSON. The URLs of the rows are returned, too, as the index has them.

    Raises:
        BadSampleError: The list is damaged before one of the rows, has fewer rows, or two columns of one of the names.
        OSError: Disk or network failure.
    """
    wanted, places = np.unique(rows, return_inverse=True)
    chosen: dict[str, list[Any]] = {name: [] for name in dict.fromkeys(names)}
    kinds: dict[str, set[str]] = {name: set() for name in chosen}
    urls = [pa.array([], pa.string())]
    count = 0
    try:
        with root.filesystem.open_input_file(f"{root.path}/{path}") as file:
            source = TextList(file, form_of(path) or "", file.size())
            check_names(list_schema(source.names, None), names)
            for batch in source.batches():
                here = wanted[slice(*np.searchsorted(wanted, [count, count + len(batch)]))] - count
                good = [{} if isinstance(row, BadRow) else row for row in batch]
                for name, values in chosen.items():
                    column = [row.get(name) for row in good]
                    kinds[name].update(map(_kind, column))
                    values += [column[number] for number in here.tolist()]
                urls.append(_urls(source, [good[number] for number in here.tolist()], settings))
                count += len(batch)
    except BAD_LIST as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if wanted.size and wanted[-1] >= count:
            raise BadSampleError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    if wanted.size and not 0 <= wanted[0] <= wanted[-1] < count:
        raise BadSampleError(f"{path}: has {count:,} rows, and row {wanted[-1]:,} is asked for; index the pool again")
    order = pa.array(places.reshape(-1))
    typed = {name: _typed(values, kinds[name]).take(order) for name, values in chosen.items()}
    return pa.table([typed[name] for name in names], names=list(names)), pa.concat_arrays(urls).take(order)


def _urls(source: TextList, rows: Sequence[ListRow], settings: UrlSettings) -> pa.Array:
    """Return the URLs of rows of the batch that was read last; null where the index would have none."""
    if not rows:
        return pa.nulls(0, pa.string())
    try:
        schema = list_schema(source.names, settings.id)
        names = url_columns(schema, None if source.form == "plain text" else settings.url)
    except BadSampleError:
        return pa.nulls(len(rows), pa.string())
    return urls_of(index_batch(rows, UrlColumns({"url": names}, {}, None))[0], names)


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if _is_int64(value) else "number"
    if isinstance(value, float):
        return "number"
    if not isinstance(value, str):
        return "other"
    if value in _MISSING:
        return "no value"
    if _INTEGER.fullmatch(value) and _is_int64(int(value)):
        return "integer text"
    return "number text" if _NUMBER.fullmatch(value) else "text"


def _typed(values: Sequence[Any], kinds: set[str]) -> pa.Array:
    kinds = kinds - {"missing"}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {"boolean"}:
        return pa.array(values, pa.bool_())
    if kinds <= {"integer", "integer text", "no value"} and kinds != {"no value"}:
        return pa.array([None if value in _MISSING or value is None else int(value) for value in values], pa.int64())
    if kinds <= {"integer", "integer text", "number", "number text", "no value"} and kinds != {"no value"}:
        return pa.array(
            [None if value in _MISSING or value is None else _float(value) for value in values], pa.float64()
        )
    return pa.array([value if value is None else _as_text(value) for value in values], pa.string())


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _as_text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return decoded(octets(text))[0]


def _first_text(value: object) -> str | None:
    """Return a text, or of a list the first one that is not empty."""
    if isinstance(value, list):
        return next((text for text in value if isinstance(text, str) and text), None)
    return value if isinstance(value, str) else None


def _texts(values: Sequence[str | None]) -> pa.Array:
    """Return a column of texts; of bytes if some are not UTF-8."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([value if value is None else octets(value) for value in values], pa.binary())


def _side(value: object) -> str | None:
    """Return a width or height as a text."""
    text = value if isinstance(value, str) else repr(value) if type(value) in (int, float) else ""
    return text if text.isascii() and len(text) < 100 else None


def _id(value: object) -> int | None:
    if isinstance(value, str) and _ID.fullmatch(value):
        value = int(value)
    return value if type(value) is int and _is_int64(value) else None


def _is_int64(value: int) -> bool:
    return -(1 << 63) <= value < 1 << 63


def _short(value: object) -> str:
    return "null" if value is None else ascii(value)[:60]
