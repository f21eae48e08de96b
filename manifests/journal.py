"""Journals: rows are saved one by one while their part is computed, so that a kill loses no finished row.

Several jobs may work on one table. Each job reads all journals, so that no saved row is computed twice. A journal is
deleted only by its owner, or by another job when its owner is gone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs as pafs

from core.control_tokens import count_control_tokens
from manifests.checksums import UNREADABLE
from manifests.process import is_gone, this_process
from manifests.schemas import text_of
from manifests.tables import Table

_PREFIX, _SUFFIX = "journal-", ".arrows"
_CRC = "crc32"

_BUFFER = 1 << 16  # bytes

Outdated: TypeAlias = Callable[[pl.LazyFrame], Iterable[int]]

_QUIET_S = 600.0
"""Seconds. A journal from another machine that has not grown for this long has no owner any more."""


class Journal:
    """An append-only file of Arrow record batches with the finished rows of one part of a table.

    Readers of the table ignore it. When `append` returns, the operating system has the batch: a killed process loses
    nothing, a power failure may lose the last seconds. Only local folders (including shared ones) support appending. On
    other file systems nothing is saved, and a kill loses the part.

    Attributes:
        left_behind: Rows that other attempts at this part, killed or still running, have saved, without rows that can
            be retried.
    """

    def __init__(self, table: Table, ids: pa.ChunkedArray, provenance: Mapping[str, object]) -> None:
        """Open a journal for the part of `table` that holds `ids`."""
        self._table, self._part = table, _part_name(ids)
        read = [_read(table, file) for file in self._files()] if table.folder.local else []
        rows = pa.concat_tables([table.schema.empty_table(), *read])
        self.left_behind: pa.Table = _once(rows.filter(pc.invert(rows["retry"])))
        self._name = f"{self._part}-{uuid.uuid4().hex[:8]}-{this_process()}{_SUFFIX}"
        self._writer: Any = None
        self._lock = threading.Lock()
        schema = table.schema.with_metadata({"vl3syn": json.dumps(dict(provenance), sort_keys=True)})
        self._schema_crc = zlib.crc32(schema.serialize())
        if table.folder.local:
            table.folder.create()
            file = pa.OSFile(f"{table.folder.path}/{self._name}", "wb")
            self._buffer = pa.BufferedOutputStream(file, _BUFFER)  # a batch has dozens of pieces; one write is enough
            self._writer = pa.ipc.new_stream(self._buffer, schema)

    def append(self, rows: pa.Table) -> None:
        """Save rows. It may be called from any thread."""
        if self._writer is not None and rows.num_rows:
            if rows.schema != self._table.schema:
                rows = rows.select(self._table.schema.names).cast(self._table.schema)
            rows = rows.combine_chunks()
            with self._lock:
                for batch in rows.to_batches():
                    crc = zlib.crc32(batch.serialize(), self._schema_crc)
                    self._writer.write_batch(batch, custom_metadata={_CRC: str(crc)})
                self._buffer.flush()

    def delete(self) -> None:
        """Delete this journal and those of ended attempts at the part. Call it when the part is stored."""
        if self._writer is not None:
            self._writer.close()
            for file in self._files():
                if file.base_name == self._name or _is_left(file):
                    self._table.folder.delete(file.base_name)

    def _files(self) -> list[pafs.FileInfo]:
        return [file for file in _journals(self._table) if file.base_name.startswith(f"{self._part}-")]


def recover(table: Table, outdated: Outdated | None = None, *, retried: bool = True) -> int:
    """Store the rows of journals that the table does not have yet as parts. Return the number of rows.

    Journals of ended jobs are deleted. Rows of a running job are copied, as that job stores its part itself. A job
    calls this before it reads which rows are stored.

    Args:
        table: The table.
        outdated: Returns the ids of current rows that are to be computed again (`Stage.outdated`): a journal's rows
            replace them.
        retried: Whether to store rows that are to be retried, too. In the middle of a job, whose own rows are older
            than what this stores, an error would hide the row that the job computes next.
    """
    if not table.folder.local:
        return 0
    files = _journals(table)
    left = {file.base_name for file in files if _is_left(file)}  # before reading: an owner may write, then end
    read = {file.base_name: _read(table, file) for file in files}
    writer = table.next_writer()
    ids = [id_ for rows in read.values() for id_ in rows["id"].to_pylist()]
    known, stored = _known(table, ids, outdated)
    recovered = 0
    for file in files:
        rows = read[file.base_name]
        skip = pc.is_in(rows["id"], pa.array(stored, pa.int64()))
        if file.base_name not in left or not retried:
            skip = pc.or_(skip, rows["retry"])
        # A stored row may have been marked to be computed again since. An old error must not undo that.
        skip = pc.or_(skip, pc.and_(pc.is_valid(rows["error"]), pc.is_in(rows["id"], pa.array(known, pa.int64()))))
        rows = _once(rows.filter(pc.invert(skip)))
        if rows.num_rows:
            provenance = json.loads((rows.schema.metadata or {}).get(b"vl3syn", b"{}"))
            table.append(rows, writer, provenance)
            stored.update(rows["id"].to_pylist())
            recovered += rows.num_rows
    for name in left:
        table.folder.delete(name)
    return recovered


def _known(table: Table, ids: list[int], outdated: Outdated | None) -> tuple[set[int], set[int]]:
    """Return those of `ids` that have a stored row, and those whose row need be neither retried nor computed again."""
    if not ids:
        return set(), set()
    rows = table.scan(["id", "retry"]).filter(pl.col("id").is_in(ids)).collect(engine="streaming")
    stored = set(rows.filter(~pl.col("retry"))["id"])
    wrong = outdated(table.scan().filter(pl.col("id").is_in(ids))) if outdated and stored else ()
    return set(rows["id"]), stored.difference(wrong)


def _journals(table: Table) -> list[pafs.FileInfo]:
    files = table.folder.files()
    return [f for f in files if f.base_name.startswith(_PREFIX) and f.base_name.endswith(_SUFFIX)]


def _is_left(file: pafs.FileInfo) -> bool:
    """Return whether a journal's owner is gone. Earlier versions named no owner: an empty journal of theirs is left."""
    _, _, *owner = file.base_name.removeprefix(_PREFIX).removesuffix(_SUFFIX).split("-")
    if not owner and not file.size:
        return True
    gone = is_gone("-".join(owner)) if owner else None
    return time.time() - file.mtime_ns / 1e9 > _QUIET_S if gone is None else gone


def _read(table: Table, file: pafs.FileInfo) -> pa.Table:
    """Read the complete rows of a journal, with its provenance. A batch that a kill has cut off is left out."""
    batches: list[pa.RecordBatch] = []
    try:
        with pa.OSFile(file.path) as source:
            for batch in _sound_batches(pa.ipc.open_stream(source)):
                batches.append(batch)
    except UNREADABLE:  # cut off inside a message, or the file was just deleted because its part is stored
        pass
    if not batches:
        return table.schema.empty_table()
    read = pa.Table.from_batches(batches)
    if any(name in read.schema.names and read.schema.field(name).type != type_ for name, type_ in _types(table)):
        return table.schema.empty_table()  # written by another version
    columns = [_column(read, field) for field in table.schema]
    return pa.table(columns, schema=table.schema.with_metadata(read.schema.metadata))


def _column(read: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """Return a column of a journal. If it is missing (earlier version), count control tokens, or return nulls."""
    if field.name in read.schema.names:
        return read[field.name]
    texts = read[text].to_pylist() if (text := text_of(field)) in read.schema.names else [None] * read.num_rows
    return pa.array([None if text is None else count_control_tokens(text) for text in texts], field.type)


def _types(table: Table) -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in table.schema]


def _sound_batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield the batches before the first damaged one. Batches of earlier versions have no checksum to compare."""
    schema_crc = zlib.crc32(reader.schema.serialize())
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return
        expected = (metadata or {}).get(_CRC.encode())
        if expected is not None and int(expected) != zlib.crc32(batch.serialize(), schema_crc):
            return
        yield batch


def _once(rows: pa.Table) -> pa.Table:
    """Return the newest row of each id, sorted by id."""
    newest = {id_: row for row, id_ in enumerate(rows["id"].to_pylist())}
    return rows.take(pa.array([newest[id_] for id_ in sorted(newest)], pa.int64()))


def _part_name(ids: pa.ChunkedArray) -> str:
    return f"{_PREFIX}{hashlib.blake2b(ids.combine_chunks().to_numpy().tobytes(), digest_size=8).hexdigest()}"
