"""Rows written down one by one while their part is being computed, so that a kill costs none that was paid for."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schemas import aligned
from manifests.tables import Table

_PREFIX, _SUFFIX = "journal-", ".arrows"


class Journal:
    """The rows of one part of a table, as Arrow record batches at the end of a file that only grows.

    No reader of the table looks at it. A batch is with the operating system when `append` returns: a killed process
    loses nothing, a machine that loses its power may lose the last seconds. Only local folders (shared ones too) can
    grow a file; elsewhere nothing is written down, and a kill costs the part.

    Attributes:
        left_behind: Rows that an earlier try at this part, killed since, has written down, without those that are
            worth another try.
    """

    def __init__(self, table: Table, ids: pa.ChunkedArray, provenance: Mapping[str, object]) -> None:
        """Open a journal for the part of `table` that holds `ids`."""
        self._table, self._name = table, _part_name(ids)
        read = _read(table, self._files()).values() if table.folder.local else []
        rows = pa.concat_tables([table.schema.empty_table(), *read])
        self.left_behind: pa.Table = _once(rows.filter(pc.invert(rows["retry"])))
        self._writer: Any = None
        self._lock = threading.Lock()
        schema = table.schema.with_metadata({"vl3syn": json.dumps(dict(provenance), sort_keys=True)})
        if table.folder.local:
            table.folder.create()
            path = f"{table.folder.path}/{self._name}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
            self._writer = pa.ipc.new_stream(pa.OSFile(path, "wb"), schema)

    def append(self, rows: pa.Table) -> None:
        """Write rows down; from any thread."""
        if self._writer is not None and rows.num_rows:
            with self._lock:
                self._writer.write_table(rows.select(self._table.schema.names).cast(self._table.schema))

    def delete(self) -> None:
        """Forget it: its part is stored."""
        if self._writer is not None:
            self._writer.close()
            for name in self._files():
                self._table.folder.delete(name)

    def _files(self) -> list[str]:
        return [name for name in _journals(self._table) if name.startswith(self._name)]


def recover(table: Table) -> int:
    """Store what killed jobs had written down as parts of the table; how many rows that were.

    To be called while nobody computes: by the next job, before it looks at what is stored.
    """
    if not table.folder.local:
        return 0
    found = _read(table, _journals(table))
    writer = table.next_writer()
    stored: set[int] = set()
    recovered = 0
    for rows in found.values():
        rows = _once(rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(stored, pa.int64())))))
        if rows.num_rows:
            provenance = json.loads((rows.schema.metadata or {}).get(b"vl3syn", b"{}"))
            table.append(rows, writer, provenance)
            stored.update(rows["id"].to_pylist())
            recovered += rows.num_rows
    for name in found:
        table.folder.delete(name)
    return recovered


def _journals(table: Table) -> list[str]:
    names = [file.base_name for file in table.folder.files()]
    return [name for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]


def _read(table: Table, names: list[str]) -> dict[str, pa.Table]:
    """The whole rows of each journal; what a kill has cut off at its end is left out."""
    return {name: _whole_rows(f"{table.folder.path}/{name}", table.schema) for name in names}


def _whole_rows(path: str, schema: pa.Schema) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    written = schema  # by the version that wrote it
    with pa.OSFile(path) as file:
        try:
            reader = pa.ipc.open_stream(file)
            written = reader.schema
            while True:
                batches.append(reader.read_next_batch())
        except (StopIteration, pa.ArrowInvalid, OSError):  # OSError: cut in the middle of a message
            return aligned(pa.Table.from_batches(batches, written), schema)


def _once(rows: pa.Table) -> pa.Table:
    """The newest row of each id, in the order of ids."""
    newest = {id_: place for place, id_ in enumerate(rows["id"].to_pylist())}
    return rows.take(pa.array([newest[id_] for id_ in sorted(newest)], pa.int64()))


def _part_name(ids: pa.ChunkedArray) -> str:
    return f"{_PREFIX}{hashlib.blake2b(ids.combine_chunks().to_numpy().tobytes(), digest_size=8).hexdigest()}"
