"""Read the rows of a source, file by file, in flat memory: JSON, JSON lines, Parquet, CSV, tars; gzip, zstd, bzip2.

What is no row becomes `Unreadable`, which the import rejects. What makes the rest of a file unreadable, such as a
broken JSON array, is a UserError: rows would be lost otherwise. Pickles run code and are refused.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from core.errors import BadSampleError, UserError
from core.json_stream import JsonStream
from model.training.data.importers.format import Row, Unreadable
from model.training.data.importers.table_readers import csv_rows, parquet_rows
from model.training.data.importers.tar_reader import tar_rows

LARGEST = 64 << 20
"""Largest row in a JSON file, in bytes. A row is in memory while it is read."""

_LONGEST_FIRST = 8 << 20  # bytes of a first line that decides whether a .json is JSON lines
_BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "surrogateescape"
"""Bytes that are no UTF-8 reject the row whose text has them, as in JSON lines."""

LINE_INDEX = "a last line that is a list of numbers was passed over as an index of the lines"
OTHER_FILES = "files of other kinds, pickles or links in the folder were passed over"

_PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib")
_KINDS = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".tar", ".txt")

Notes = Counter[str]


def kind_of(path: Path) -> str:
    """Return the kind of a file by its name, without the ending of a compression: `.json`, `.tar`, …."""
    name = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    return ".tar" if path.suffix.lower() == ".tgz" else name.suffix.lower()


def files_of(source: Path) -> list[Path]:
    """Return the files of a source: itself, or all files of known kinds in a folder, sorted by path.

    Raises:
        UserError: There is none, or it is a pickle.
    """
    if source.is_file():
        if kind_of(source) in _PICKLES:
            raise UserError(
                f"{source}: a pickle can run code and is not read: load it where you trust it, and write JSON lines"
            )
        if kind_of(source) not in _KINDS:
            raise UserError(f"{source}: an unknown kind of file: give one of {', '.join(_KINDS)}")
        return [source]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    inside = [file for file in _visible(source) if file.is_file() and not file.is_symlink()]
    files = [file for file in inside if kind_of(file) in _KINDS]
    if not files:
        raise UserError(f"{source}: no {', '.join(_KINDS)} in it: name the file or folder of annotations")
    return files


def files_of_kind(source: Path, kind: str) -> list[Path]:
    """Return the files of a source that have a kind, such as `.json`.

    Raises:
        UserError: As in `files_of`.
    """
    return [file for file in files_of(source) if kind_of(file) == kind]


def _visible(folder: Path) -> list[Path]:
    """Return what is in a folder, at any depth, but for hidden files and folders."""
    inside = folder.rglob("*")
    return sorted(path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_rows(source: Path, inside: Sequence[str] = (), notes: Notes | None = None) -> Iterator[Row]:
    """Yield the rows of a source.

    Args:
        source: A file, or a folder whose files are read in order.
        inside: As `Format.inside`.
        notes: What was passed over is counted here.

    Raises:
        UserError: A file cannot be read to its end.
    """
    notes = Counter() if notes is None else notes
    files = files_of(source)
    if source.is_dir():
        others = {file for file in _visible(source) if not file.is_dir()}
        notes.update({OTHER_FILES: len(others - set(files))} if len(others) > len(files) else {})
    for file in files:
        yield from read_file(file, file.name if file == source else str(file.relative_to(source)), inside, notes)


def read_file(file: Path, name: str, inside: Sequence[str], notes: Notes) -> Iterator[Row]:
    """Yield the rows of one file."""
    kind = kind_of(file)
    try:
        if kind == ".parquet":
            yield from parquet_rows(file, name)
            return
        with open_packed(file) as data:
            if kind in (".csv", ".tsv"):
                yield from csv_rows(data, name, "\t" if kind == ".tsv" else ",")
            elif kind == ".tar":
                yield from tar_rows(data, name)
            elif kind == ".txt":
                yield from _text_rows(data, name)
            elif kind == ".json" and not _is_lines(file):
                yield from _json_rows(file, name, inside)
            else:
                yield from _line_rows(data, name, notes)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}; copy it again") from error


def open_packed(file: Path) -> IO[bytes]:
    """Open a file, unpacking gzip, zstd and bzip2 on the way."""
    packing = "gzip" if file.suffix.lower() == ".tgz" else _PACKED.get(file.suffix.lower())
    if packing is None:
        return open(file, "rb")
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(file), compression=packing))


def _is_lines(file: Path) -> bool:
    """Return whether a .json has an object per line. One that is an object on one line alone is not."""
    with open_packed(file) as data:
        if JsonStream(data, LARGEST, "replace").peek() != "{":
            return False
    with open_packed(file) as data:
        lines = (line for line in iter(lambda: data.readline(_LONGEST_FIRST), b"") if not line.isspace())
        try:
            json.loads(next(lines).removeprefix(_BOM))
        except (ValueError, RecursionError):
            return False
        return next(lines, None) is not None


def _json_rows(file: Path, name: str, inside: Sequence[str]) -> Iterator[Row]:
    number = 0
    wanted = _key_inside(file, inside) if inside else ""
    with open_packed(file) as data:
        text = JsonStream(data, LARGEST, NOT_UTF8)
        try:
            if (start := text.peek()) not in ("[", "{"):
                raise UserError(f"{name}: no JSON: it begins with {start!r}")
            for number, (key, value) in enumerate(_values(text, wanted), 1):
                yield Row(value, name, number, key)
            text.finish()
        except BadSampleError as error:
            raise UserError(
                f"{name}: no JSON behind entry {number:,}: {error}; nothing of the rest can be read: mend the file"
            ) from error


def _values(text: JsonStream, wanted: str) -> Iterator[tuple[str, Any]]:
    """Yield the elements of an array, or the values of an object with their keys; those at the key `wanted`, if any."""
    if text.peek() == "[":
        yield from (("", value) for value in text.elements())
        return
    for key in text.keys():  # noqa: SIM118  # no mapping
        if not wanted:
            yield key, text.value()
        elif key == wanted:
            yield from _values(text, "")
        else:
            text.skip()


def _key_inside(file: Path, inside: Sequence[str]) -> str:
    """Return the first of some keys at which an object has an array or an object; an empty text if there is none."""
    held: set[str] = set()
    with open_packed(file) as data:
        text = JsonStream(data, LARGEST, NOT_UTF8)
        if text.peek() != "{":
            return ""
        with suppress(BadSampleError):  # reading the rows reports it
            for key in text.keys():  # noqa: SIM118
                held |= {key} if text.peek() in ("[", "{") else set()
                if inside[0] in held:
                    break
                text.skip()
    return next((key for key in inside if key in held), "")


def _line_rows(data: IO[bytes], name: str, notes: Notes) -> Iterator[Row]:
    held: Row | None = None
    for number, line in enumerate(_lines(data), 1):
        if line.isspace():
            continue
        if held is not None:
            yield held
        held = Row(_parsed(line), name, number)
    if held is not None and held.line > 1 and _is_index(held.value):
        notes[LINE_INDEX] += 1
    elif held is not None:
        yield held


def _is_index(value: Any) -> bool:
    """Return whether a row is a list of the places of lines, as LiveCC has it; rows of other sets are lists, too."""
    return isinstance(value, list) and all(type(item) is int for item in value)


def _text_rows(data: IO[bytes], name: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(data), 1):
        if not line.isspace():
            yield Row(_decoded(line, lambda text: {"text": text.rstrip("\r\n")}), name, number)


def _lines(data: IO[bytes]) -> Iterator[bytes]:
    first = True
    while line := data.readline(LARGEST):
        if len(line) == LARGEST and not line.endswith(b"\n"):
            raise UserError(f"a line of more than {LARGEST >> 20} MiB: it would fill the memory; split it")
        yield line.removeprefix(_BOM) if first else line
        first = False


def _parsed(line: bytes) -> Any:
    return _decoded(line, json.loads)


def _decoded(line: bytes, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(line.decode())
    except (ValueError, RecursionError) as error:
        return Unreadable(line[:2000].decode("utf-8", "replace"), f"no JSON: {' '.join(str(error).split())[:200]}")
