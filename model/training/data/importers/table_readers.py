"""Read the rows of tables: Parquet, CSV, TSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from core.errors import BadSampleError, UserError
from model.training.data.importers.format import Row, Unreadable

_BATCH = 64  # rows: with images in them, a few hundred megabytes at most
_LONGEST_FIELD = 16 << 20


def parquet_columns(file: Path) -> list[str]:
    """Return the names of a Parquet file's columns; none if it is damaged, which reading the rows reports."""
    import pyarrow as pa

    from core.parquet import Parquet

    try:
        with open(file, "rb") as data:
            return list(Parquet(data).schema.names)
    except (BadSampleError, pa.ArrowException):
        return []


def parquet_rows(file: Path, name: str, column: str = "") -> Iterator[Row]:
    """Yield the rows of a Parquet file as objects.

    Args:
        file: The file.
        name: Its name in the rows.
        column: The one column that is read; default: all.

    Raises:
        UserError: It is damaged, lacks the column, or has a column that is no plain data.
    """
    import pyarrow as pa

    from core.parquet import Parquet

    number = 0
    try:
        with open(file, "rb") as data:
            table = Parquet(data)
            if column and column not in table.schema.names:
                raise UserError(f"{file}: no column `{column}`: it is another data set, or a part of one")
            for batch in table.batches([column] if column else table.schema.names, _BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(value, name, number)
    except (BadSampleError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: cannot be read behind row {number:,}: {reason}; copy it again") from error


def csv_rows(data: IO[bytes], name: str, separator: str) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV as objects of texts. A .csv whose header has tabs and no comma is a TSV.

    Raises:
        UserError: It has no header.
    """
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        text = io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="")
        header_line = text.readline(_LONGEST_FIELD)
        if "\t" in header_line and "," not in header_line:
            separator = "\t"
        columns = next(csv.reader([header_line], delimiter=separator), [])
        if not any(columns):
            raise UserError(f"{name}: no header: its first line must name the columns")
        yield from _csv_values(csv.reader(text, delimiter=separator), columns, name)
        text.detach()
    finally:
        csv.field_size_limit(before)


def _csv_values(reader: Iterator[list[str]], columns: list[str], name: str) -> Iterator[Row]:
    number = 1
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(Unreadable("", f"no CSV: {error}"), name, number)
            continue
        if not values:
            continue
        if len(values) != len(columns):
            reason = f"no CSV: {len(values)} fields under {len(columns)} columns"
            yield Row(Unreadable(",".join(values)[:2000], reason), name, number)
        else:
            yield Row(dict(zip(columns, values, strict=True)), name, number)
