"""Files of records: JSON lines, or Parquet with columns to query beside the record's JSON.

Both hold the same text of a record (`Record.to_json`), so both read back exactly. The other columns of Parquet are
computed from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pydantic import ValidationError

from core.errors import BadSampleError, UserError
from core.records import Record
from core.settings import problem

if TYPE_CHECKING:
    import pyarrow as pa

Form = Literal["jsonl", "parquet"]
NAME = "records-"
COLUMN = "record"
"""The column of Parquet with the record's JSON."""

_FILE = re.compile(rf"{NAME}\d+\.(jsonl|parquet)")
_ROWS_PER_FILE = 200_000
_ROWS_PER_GROUP = 1_000


def schema() -> pa.Schema:
    """Return the columns of Parquet files of records."""
    import pyarrow as pa

    medium = pa.struct(
        {
            "key": pa.string(),
            "type": pa.string(),
            "path": pa.string(),
            "start": pa.float64(),
            "end": pa.float64(),
            "duration": pa.float64(),
            "present": pa.bool_(),
        }
    )
    text = ("id", "dataset", "subset", "split", "original_id", "task", "aspect", "licence", "generator")
    columns = {
        **dict.fromkeys(text, pa.string()),
        "non_commercial": pa.bool_(),
        "media": pa.list_(medium),
        "num_turns": pa.int32(),
        "question": pa.string(),
        "answer": pa.string(),
        "characters": pa.int64(),
        COLUMN: pa.string(),
    }
    return pa.schema(columns)


def row_of(record: Record) -> dict[str, Any]:
    """Return the columns of a record: its first question, its last answer, the characters of all turns, …."""
    media = [
        {name: getattr(medium, name) for name in ("key", "type", "path", "start", "end", "duration", "present")}
        for medium in record.media
    ]
    return {
        "id": record.id,
        "dataset": record.source.dataset,
        "subset": record.source.subset,
        "split": record.source.split,
        "original_id": record.source.original_id,
        "task": record.task,
        "aspect": record.aspect,
        "licence": record.licence.name,
        "generator": record.licence.generator,
        "non_commercial": record.licence.non_commercial,
        "media": media,
        "num_turns": len(record.turns),
        "question": next((turn.text for turn in record.turns if turn.role == "user"), None),
        "answer": next((turn.text for turn in reversed(record.turns) if turn.role == "assistant"), None),
        "characters": sum(len(turn.text) for turn in record.turns),
        COLUMN: record.to_json(),
    }


class RecordWriter:
    """Writes records into `records-00000.jsonl`, `records-00001.jsonl`, … of a folder; or `.parquet`."""

    def __init__(self, folder: Path, form: Form = "jsonl", rows_per_file: int = _ROWS_PER_FILE) -> None:
        self.files: list[Path] = []
        self._folder, self._form, self._rows_per_file = folder, form, rows_per_file
        self._written = 0
        self._lines: BinaryIO | None = None
        self._parquet: Any = None
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and not self.files:
            self._open()  # no records are a file without rows, not a missing one
        self._close()

    def write(self, record: Record) -> None:
        """Append one record."""
        if self._written % self._rows_per_file == 0:
            self._open()
        self._written += 1
        if self._lines is not None:
            self._lines.write(record.to_json().encode() + b"\n")
            return
        self._waiting.append(row_of(record))
        if len(self._waiting) == _ROWS_PER_GROUP:
            self._flush()

    def _open(self) -> None:
        self._close()
        self.files.append(self._folder / f"{NAME}{len(self.files):05d}.{self._form}")
        if self._form == "jsonl":
            self._lines = open(self.files[-1], "wb")
            return
        import pyarrow.parquet as pq

        self._parquet = pq.ParquetWriter(self.files[-1], schema(), compression="zstd")

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._parquet.write_table(pa.Table.from_pylist(self._waiting, schema()))
            self._waiting = []

    def _close(self) -> None:
        if self._lines is not None:
            self._lines.close()
        if self._parquet is not None:
            self._flush()
            self._parquet.close()
        self._lines = self._parquet = None


def are_records(path: str | Path) -> bool:
    """Return whether a path is a file of records that an import wrote, by its name, or a folder with some."""
    place = Path(path)
    if place.is_dir():
        return any(_FILE.fullmatch(file.name) for file in place.iterdir())
    return _FILE.fullmatch(place.name) is not None


def record_files(path: str | Path) -> list[Path]:
    """Return the files of records at a path: the file itself, or those of a folder, in order.

    Raises:
        UserError: There are none, one is missing, or there are files of both forms.
    """
    place = Path(path)
    if place.is_file():
        if place.suffix not in (".jsonl", ".parquet"):
            raise UserError(f"{path}: records are in .jsonl or .parquet: name the folder that `vl3syn import` wrote")
        return [place]
    files = sorted(file for file in place.glob(f"{NAME}*") if file.suffix in (".jsonl", ".parquet"))
    if not files:
        raise UserError(f"{path}: no records ({NAME}00000.jsonl): name the folder that `vl3syn import` wrote")
    if len({file.suffix for file in files}) > 1:
        raise UserError(f"{path}: records as .jsonl and as .parquet: leave one form there, else each counts twice")
    for number, file in enumerate(files):
        if file.stem != f"{NAME}{number:05d}":
            raise UserError(f"{path}: {file.name} where {NAME}{number:05d} should be: copy all files, and no others")
    return files


def read_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a file or a folder.

    Raises:
        UserError: There are none, or a file is damaged.
    """
    for file in record_files(path):
        for number, text in enumerate(_texts(file), 1):
            try:
                yield parse_record(text)
            except BadSampleError as error:
                raise UserError(f"{file}: record {number}: {error}; import it again") from error


def parse_record(text: str | bytes) -> Record:
    """Return the record of a JSON text.

    Raises:
        BadSampleError: It is not a record.
    """
    try:
        return Record.from_json(text)
    except ValidationError as error:
        raise BadSampleError(f"no record: {problem(error)}") from error


def _texts(file: Path) -> Iterator[str | bytes]:
    if file.suffix == ".jsonl":
        with open(file, "rb") as lines:
            yield from (line for line in lines if not line.isspace())
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            if COLUMN not in opened.schema_arrow.names:
                raise UserError(f"{file}: no column {COLUMN}: these are no records; `vl3syn import` writes them")
            for batch in opened.iter_batches(_ROWS_PER_GROUP, columns=[COLUMN]):
                yield from batch.column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: no whole Parquet file: import it again") from error
