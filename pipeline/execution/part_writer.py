"""The last step of every job: a worker stores each part as soon as it is computed, and returns only a receipt.

With a separate operator for storage (a Ray Data sink), the workers would run far ahead of it: in our trials, a crash
lost tens of parts. Here a crash costs a worker only the part that it is computing. See docs/decisions.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from manifests.contents import contents_table
from manifests.part_files import part_name
from manifests.run import Run
from manifests.storage import ASIDE
from manifests.tables import Table
from manifests.version import __version__
from pipeline.execution.reasons import count_reasons
from pipeline.execution.receipts import receipt


@dataclass(frozen=True)
class Store:
    """Stores the parts of a job in a table.

    A task that Ray runs a second time stores the same ids under the same part name, so no row is stored twice.

    Attributes:
        table: The table.
        writer: The name of the job, from `Table.next_writer`.
        provenance: The provenance of the job's parts.
    """

    table: Table
    writer: str
    provenance: Mapping[str, object]

    def knowing(self, more: Mapping[str, object]) -> Self:
        """Return the same store with additional provenance that only the worker knows."""
        return replace(self, provenance={**self.provenance, **more})

    def __call__(
        self,
        part: pa.Table,
        begin: float | None = None,
        busy: float | None = None,
        bytes_read: int = 0,
        tokens: int = 0,
    ) -> pa.Table:
        """Store the rows of one part; return its receipt, which holds the other arguments (see `receipt`)."""
        self.table.append(part, self.writer, self.provenance)
        errors = part["error"].drop_null().to_pylist()
        return receipt(part.num_rows, len(errors), begin, busy, bytes_read, tokens, count_reasons(errors))

    def name_of(self, ids: pa.ChunkedArray) -> str:
        """Return the name of this job's part with these ids, in this order."""
        return part_name(self.writer, ids)

    def has(self, ids: pa.ChunkedArray) -> bool:
        """Return whether this job has stored the part with these ids, in this order."""
        return self.table.folder.exists(self.name_of(ids))

    def claim_model(self, model: Mapping[str, object]) -> Mapping[str, object]:
        """Write down which model a worker of this job has loaded, JSON values. Return that of the first worker."""
        folder = self.table.folder
        if folder.create_file(self._model_file, json.dumps(model).encode()):
            return model
        return dict(json.loads(folder.read(self._model_file)))

    def forget_model(self) -> None:
        """Delete what `claim_model` has written down; call it when the job has ended. After a kill it is swept."""
        self.table.folder.delete(self._model_file)

    @property
    def _model_file(self) -> str:
        return f"{ASIDE}model-{self.writer}.json"

    def receipts_of(self, parts: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
        """Yield stored parts, in no order, with the receipts that their workers could not return before they died."""
        for part, rows in self.table.read_each(parts, ["id", "error"]):
            errors = rows["error"].drop_null().to_pylist()
            yield part, receipt(rows.num_rows, len(errors), reasons=count_reasons(errors))


def contents_store(run: Run) -> Store:
    """Return a store of the run's table of contents, for lengths and digests of images that were not read before."""
    table = contents_table(run.folder)
    return Store(table, table.next_writer(), {"vl3syn": __version__})
