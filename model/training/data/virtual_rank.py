"""One stream of a training's samples: read ahead, packed into rows, and resumed from a saved position."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypedDict, TypeVar

from core.errors import BadSampleError, UserError
from model.training.data.packing import Packer, Row, Sized

SAMPLES_AHEAD = 8
"""Samples that a virtual rank prefetches, in addition to one per process."""


class VirtualRankState(TypedDict):
    """The position of a virtual rank. A sample is stored as [index, piece], see `Prepared`.

    Attributes:
        cursor: Number of samples that were taken from the order.
        open: The samples of each open row, that is, of each row that more samples may join.
        pending: Samples that are in no row yet.
    """

    cursor: int
    open: list[list[list[int]]]
    pending: list[list[int]]


class Piece(Sized, Protocol):
    """A sample of the order, or a piece of one, see `Prepared`."""

    @property
    def index(self) -> int:
        """Position in the sampler's order, from 0."""
        ...

    @property
    def piece(self) -> int:
        """Number of the piece of a split conversation, from 0."""
        ...


P = TypeVar("P", bound=Piece)


class VirtualRank(Generic[P]):
    """One stream of samples, packed into rows."""

    def __init__(
        self,
        number: int,
        count: int,
        end: int | None,
        packer: Packer[P],
        submit: Callable[[int], Future[list[P]]],
        samples_ahead: int = SAMPLES_AHEAD,
    ) -> None:
        """Begin at the first sample.

        Args:
            number: Number of this virtual rank, from 0.
            count: Number of all virtual ranks.
            end: Number of samples of the stage; None if only its number of steps is set.
            packer: Packs this virtual rank's samples.
            submit: Starts to prepare the sample at an index of the order.
            samples_ahead: Number of samples to prefetch.
        """
        self._samples_ahead = samples_ahead
        self.number, self.count, self.end, self.packer, self._submit = number, count, end, packer, submit
        self.cursor = 0
        self.pending: deque[P] = deque()
        self._futures: deque[Future[list[P]]] = deque()

    def next_row(self, report: Callable[[BadSampleError | None], None]) -> Row[P] | None:
        """Return the next row, or None at the end. For each sample `report` gets None, or the error of a bad one."""
        while True:
            while self.pending:
                if row := self.packer.add(self.pending.popleft()):
                    return row
            future = self._next_sample()
            if future is None:
                return next(self.packer.flush(), None)
            self.cursor += 1
            try:
                self.pending.extend(future.result())
                report(None)
            except BadSampleError as error:
                report(error)

    def _next_sample(self) -> Future[list[P]] | None:
        """Return the pieces of the next sample, and submit the samples after it."""
        while len(self._futures) < self._samples_ahead:
            index = self.number + (self.cursor + len(self._futures)) * self.count
            if self.end is not None and index >= self.end:
                break
            self._futures.append(self._submit(index))
        return self._futures.popleft() if self._futures else None

    @property
    def consumed_samples(self) -> int:
        """Number of consumed samples: those in finished rows, and skipped ones."""
        in_open_rows = {sample.index for row in self.packer.open for sample in row.samples}
        return self.cursor - len(in_open_rows | {sample.index for sample in self.pending})

    def state(self) -> VirtualRankState:
        """Return the position."""

        def references(samples: Sequence[P] | deque[P]) -> list[list[int]]:
            return [[sample.index, sample.piece] for sample in samples]

        return {
            "cursor": self.cursor,
            "open": [references(row.samples) for row in self.packer.open],
            "pending": references(self.pending),
        }

    def restore(self, state: VirtualRankState) -> None:
        """Return to a saved state. Samples of open rows and pending ones are read again.

        Raises:
            BadSampleError: A sample that was good before is bad now.
            UserError: A sample is split into fewer pieces than before.
        """
        self.cursor = state["cursor"]
        indices = {index for references in [*state["open"], state["pending"]] for index, _ in references}
        futures = {index: self._submit(index) for index in sorted(indices)}
        pieces = {index: future.result() for index, future in futures.items()}
        for index, piece in [pair for references in [*state["open"], state["pending"]] for pair in references]:
            if piece >= len(pieces[index]):
                raise UserError(
                    f"sample {index} of the order had more parts when this stage began: train into another folder"
                )
        for references in state["open"]:
            row: Row[P] = Row()
            for index, piece in references:
                row.add(pieces[index][piece])
            self.packer.open.append(row)
        self.pending.extend(pieces[index][piece] for index, piece in state["pending"])
