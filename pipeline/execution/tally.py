"""The sum of the receipts of a job, while it runs and at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Self

import pyarrow as pa


@dataclass
class _Worker:
    """Times of one worker in seconds, by its clock; `busy` is None until a receipt has it."""

    begin: float
    end: float
    busy: float | None = None


class Tally:
    """The sum of receipts (see `receipts.receipt`).

    Attributes:
        receipts: Number of receipts.
        taken: Rows of the blocks that are done: rows of a stage, but files of the index.
        rows: Rows stored.
        errors: Stored rows that failed.
        bytes_read: Bytes of images that were read or downloaded.
        tokens: Tokens of the captions.
        reasons: Failed rows by kind of error.
        examples: An error of each kind.
    """

    def __init__(self) -> None:
        self.receipts = self.taken = self.rows = self.errors = self.bytes_read = self.tokens = 0
        self.reasons = Counter[str]()
        self.examples: dict[str, str] = {}
        self._workers: dict[str, _Worker] = {}

    @classmethod
    def of(cls, receipts: pa.Table) -> Self:
        tally = cls()
        tally.add(receipts)
        return tally

    def add(self, receipts: pa.Table) -> None:
        for receipt in receipts.to_pylist():
            self.receipts += 1
            self.taken += receipt["taken"]
            self.rows += receipt["rows"]
            self.errors += receipt["errors"]
            self.bytes_read += receipt["bytes_read"]
            self.tokens += receipt["tokens"]
            for reason in receipt["reasons"]:
                self.reasons[reason["kind"]] += reason["rows"]
                self.examples.setdefault(reason["kind"], reason["example"])
            self._add_times(receipt["worker"], _Worker(receipt["begin"], receipt["end"], receipt["busy"]))

    def _add_times(self, name: str, part: _Worker) -> None:
        worker = self._workers.setdefault(name, _Worker(part.begin, part.end))
        worker.begin, worker.end = min(worker.begin, part.begin), max(worker.end, part.end)
        if part.busy is not None:
            worker.busy = (worker.busy or 0.0) + part.busy

    @property
    def working(self) -> float:
        """Seconds from the first row that a worker took to the last row stored."""
        if not self._workers:
            return 0.0
        workers = self._workers.values()
        return max(worker.end for worker in workers) - min(worker.begin for worker in workers)

    @property
    def rate(self) -> float:
        """Rows per second of `working`."""
        return self.rows / max(self.working, 1e-3)

    @property
    def idle(self) -> float | None:
        """Share of the workers' time in which their model waited; None if no worker has a model that can wait."""
        measured = [worker for worker in self._workers.values() if worker.busy is not None]
        wall = sum(worker.end - worker.begin for worker in measured)
        return max(0.0, 1 - sum(worker.busy or 0.0 for worker in measured) / wall) if wall else None

    def commonest(self) -> str | None:
        """Return an error of the commonest kind; None if nothing failed."""
        for kind, _ in self.reasons.most_common(1):
            return self.examples[kind]
        return None
