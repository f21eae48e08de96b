"""Read the rows of a foreign file one after the other: JSON, JSON Lines, Parquet, CSV, TSV, lines of text.

Memory holds one row, or a batch of a Parquet file. Nothing in a row is followed or run.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from core.errors import BadSampleError, UserError
from core.json_stream import JsonStream
from core.parquet import BAD_PARQUET, Parquet

ROW_FILES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".txt")
"""Endings of files with rows."""

LONGEST = 64 << 20
"""Bytes or characters of a row, at most."""

_MOST_OBJECT = 256 << 20  # bytes of a .json that is one object, which is loaded whole
_BATCH = 64  # rows of a Parquet file at once
_LISTS = ("data", "questions", "annotations", "samples", "rows", "images")  # of an object: all that are there are read

Row = Mapping[str, Any]
Numbered = tuple[int, Row | BadSampleError]


def rows_of(path: str | Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Numbered]:
    """Yield each row with its number, from 1, or the reason why it cannot be read.

    Args:
        path: A local file; its ending says what it is.
        wanted: Says which columns of a Parquet file are read, besides those of images in the form of `datasets`.

    Raises:
        UserError: The file cannot be read, is of another kind, or is broken in a way that loses the rows after it.
    """
    ending = Path(path).suffix.lower()
    if ending not in ROW_FILES:
        raise UserError(f"{path}: give a folder of images, or a file that ends with {', '.join(ROW_FILES)}, unpacked")
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(f"{path}: cannot be read: a folder, pipe or device: give a file")
    try:
        with Path(path).open("rb") as file:
            if ending == ".parquet":
                yield from _parquet(file, wanted)
            elif ending == ".json":
                yield from _json(file, Path(path).stat().st_size)
            elif ending in (".csv", ".tsv"):
                yield from _csv(file, "\t" if ending == ".tsv" else ",")
            else:
                yield from _lines(file, _text if ending == ".txt" else _loaded)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or ' '.join(str(error).split())}") from error
    except (BadSampleError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def _lines(file: BinaryIO, parse: Callable[[bytes], Row]) -> Iterator[Numbered]:
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        if len(line) == LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield number, BadSampleError(f"line {number:,} has more than {LONGEST:,} bytes")
            continue
        if line.strip():
            try:
                yield number, parse(line)
            except (ValueError, RecursionError) as error:
                yield number, BadSampleError(f"line {number:,}: {' '.join(str(error).split())}")


def _loaded(line: bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise BadSampleError("no JSON object")
    return row


def _text(line: bytes) -> Row:
    return {"question": line.decode().strip()}


def _json(file: BinaryIO, size: int) -> Iterator[Numbered]:
    start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    if start.startswith(b"["):
        yield from _array(file)
        return
    if size > _MOST_OBJECT:
        raise BadSampleError(f"one object of {size:,} bytes, more than {_MOST_OBJECT:,}: write a list, or .jsonl")
    try:
        whole = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise BadSampleError(f"no JSON: {' '.join(str(error).split())}") from error
    yield from enumerate(_rows_of_object(whole), 1)


def _rows_of_object(whole: Any) -> list[Row | BadSampleError]:
    """Return the rows of an object: of the lists in it that have a known name, else of all its lists of objects.

    Without such lists its values are the rows, with the key as the id.
    """
    if not isinstance(whole, dict):
        raise BadSampleError("neither a list nor an object")
    lists = [whole[key] for key in _LISTS if isinstance(whole.get(key), list)] or [
        value for value in whole.values() if isinstance(value, list) and any(isinstance(one, dict) for one in value)
    ]
    listed = [row for each in lists for row in each]
    if not lists:
        listed = [{"id": key, **value} for key, value in whole.items() if isinstance(value, dict)]
    if not listed:
        raise BadSampleError(f"no list of rows in it: give a list, or an object with {', '.join(_LISTS)}")
    return [row if isinstance(row, dict) else BadSampleError("no JSON object") for row in listed]


def _array(file: BinaryIO) -> Iterator[Numbered]:
    """Yield the elements of a JSON array. Only a part of the file is in memory: some chunks, or one element."""
    text, number = JsonStream(file, LONGEST), 0
    try:
        for number, row in enumerate(text.elements(), 1):
            yield number, row if isinstance(row, dict) else BadSampleError(f"row {number:,}: no JSON object")
        text.finish()
    except BadSampleError as error:
        raise BadSampleError(f"behind row {number:,}: no JSON: {error}") from error


def _parquet(file: BinaryIO, wanted: Callable[[str], bool]) -> Iterator[Numbered]:
    number = 0
    try:
        parquet = Parquet(file)
        names = [field.name for field in parquet.schema if wanted(field.name) or _is_image(field.type)]
        for batch in parquet.batches(names, _BATCH):
            for position in range(batch.num_rows):
                number += 1
                try:
                    yield number, batch.slice(position, 1).to_pylist()[0]
                except UnicodeDecodeError as error:
                    yield number, BadSampleError(f"row {number:,}: {error}")
    except BAD_PARQUET as error:
        raise BadSampleError(f"after {number:,} rows: {' '.join(str(error).split())}") from error


def _is_image(type_: pa.DataType) -> bool:
    """Return whether a column holds images as the library `datasets` stores them, or lists of these."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return _is_image(type_.value_type)
    return pa.types.is_struct(type_) and {field.name for field in type_} == {"bytes", "path"}


def _csv(file: BinaryIO, delimiter: str) -> Iterator[Numbered]:
    head = file.readline(LONGEST).decode("utf-8-sig")
    file.seek(0)
    try:
        names = next(csv.reader([head], delimiter=delimiter), [])
    except csv.Error as error:
        raise BadSampleError(f"its first line is no header: {error}") from error
    reader = pyarrow.csv.open_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(block_size=LONGEST, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    number = 0
    for batch in reader:
        for row in batch.to_pylist():
            number += 1
            yield number, row
