"""Load packed rows ahead of the trainer, and continue at the same sample after a restart.

The rows of a step come from virtual ranks (`lanes` in recipes). Virtual rank v of V reads samples v, v + V, v + 2V, …
of the sampler's order, packs them, and contributes rows / V rows to each step. Each worker has some of the virtual
ranks. So the rows of a step do not depend on the number of workers, and any number of workers can continue from the
states of all virtual ranks.

A bad sample is skipped, logged and counted. Many in a row end the run; any other error ends it at once.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypedDict

from core.errors import BadSampleError, UserError
from model.processor import Processor
from model.training.data.packing import Packer, Row
from model.training.data.prepare import Prepared, for_stage, prepare
from model.training.data.sampler import MixtureSampler
from model.training.stage import Stage

log = logging.getLogger("vl3syn.train")

_SAMPLES_AHEAD = 8  # samples that a virtual rank prefetches
_STEPS_AHEAD = 2  # steps whose rows are packed before the trainer asks for them


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


@dataclass(frozen=True, eq=False)
class StepRows:
    """The rows of one worker for one step.

    Attributes:
        rows: Packed rows. At the end of the data there are fewer, or none.
        skipped: One line per bad sample that was skipped, with the reason.
        consumed_samples: Number of samples that this worker's virtual ranks have consumed since the stage began: those
            in finished rows, these included, and skipped ones.
        virtual_ranks: State of each virtual rank after these rows, by its number.
    """

    rows: list[Row[Prepared]]
    skipped: list[str]
    consumed_samples: int
    virtual_ranks: dict[int, VirtualRankState]


class VirtualRank:
    """One stream of samples, packed into rows."""

    def __init__(
        self,
        number: int,
        count: int,
        end: int | None,
        packer: Packer[Prepared],
        submit: Callable[[int], Future[list[Prepared]]],
    ) -> None:
        """Begin at the first sample.

        Args:
            number: Number of this virtual rank, from 0.
            count: Number of all virtual ranks.
            end: Number of samples of the stage; None if only its number of steps is set.
            packer: Packs this virtual rank's samples.
            submit: Starts to prepare the sample at an index of the order.
        """
        self.number, self.count, self.end, self.packer, self._submit = number, count, end, packer, submit
        self.cursor = 0
        self.pending: deque[Prepared] = deque()
        self._futures: deque[Future[list[Prepared]]] = deque()

    def next_row(self, report: Callable[[BadSampleError | None], None]) -> Row[Prepared] | None:
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

    def _next_sample(self) -> Future[list[Prepared]] | None:
        """Return the pieces of the next sample, and submit the samples after it."""
        while len(self._futures) < _SAMPLES_AHEAD:
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

        def references(samples: Sequence[Prepared] | deque[Prepared]) -> list[list[int]]:
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
            row: Row[Prepared] = Row()
            for index, piece in references:
                row.add(pieces[index][piece])
            self.packer.open.append(row)
        self.pending.extend(pieces[index][piece] for index, piece in state["pending"])


class Loader:
    """An endless iterator over one worker's `StepRows`. After the last sample, steps have no rows.

    One thread packs rows; several threads read and prepare samples for it.

    Attributes:
        total: Number of samples of the stage; None if only its number of steps is set.
    """

    def __init__(
        self,
        sampler: MixtureSampler,
        processor: Processor,
        stage: Stage,
        *,
        rank: int = 0,
        workers: int = 1,
        threads: int = 4,
        skip_limit: int = 100,
        state: Mapping[int, VirtualRankState] | None = None,
    ) -> None:
        """Start at the first sample, or at a saved state, which any number of workers may have written.

        Raises:
            UserError: The number of virtual ranks is not a multiple of the number of workers.
            BadSampleError: A sample of the state can no longer be read.
        """
        count = stage.num_virtual_ranks
        if count % workers:
            raise UserError(
                f"stage {stage.name}: {count} lanes for {workers} workers: make `lanes` a multiple of the workers"
            )
        self._sampler, self._sources, self._stage, self._skip_limit = sampler, sampler.sources, stage, skip_limit
        self.total = None if stage.epochs is None else max(round(stage.epochs * sampler.epoch_length), 1)
        self._processor, self._local = for_stage(processor, stage), threading.local()
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._packing = ThreadPoolExecutor(1, thread_name_prefix="packing")
        self._virtual_ranks = [
            VirtualRank(number, count, self.total, Packer(stage.tokens, stage.patch_budget), self._submit)
            for number in range(rank, count, workers)
        ]
        self._rows_per_virtual_rank = stage.rows // count
        self._consecutive_skips = 0
        self._steps: deque[Future[StepRows]] = deque()
        for virtual_rank in self._virtual_ranks:
            if state:
                virtual_rank.restore(state[virtual_rank.number])

    def _submit(self, index: int) -> Future[list[Prepared]]:
        return self._readers.submit(self._prepare, index)

    def _prepare(self, index: int) -> list[Prepared]:
        if not hasattr(self._local, "processor"):
            self._local.processor = copy.deepcopy(self._processor)  # threads must not share a tokenizer
        source, row = self._sampler(index)
        sample = self._sources[source].sample(row)
        return prepare(self._local.processor, sample, index, self._stage.tokens, self._stage.patch_budget)

    def __iter__(self) -> Iterator[StepRows]:
        return self

    def __next__(self) -> StepRows:
        while len(self._steps) < _STEPS_AHEAD:
            self._steps.append(self._packing.submit(self._step))
        return self._steps.popleft().result()

    def _step(self) -> StepRows:
        skipped: list[str] = []

        def report(error: BadSampleError | None) -> None:
            self._consecutive_skips = self._consecutive_skips + 1 if error else 0
            if error is None:
                return
            skipped.append(str(error))
            log.warning("skipped %s", error)
            if self._consecutive_skips >= self._skip_limit:
                raise UserError(f"{self._consecutive_skips} bad samples in a row, so the run stops; the last: {error}")

        ranks, rows_per_rank = self._virtual_ranks, range(self._rows_per_virtual_rank)
        return StepRows(
            rows=[row for rank in ranks for _ in rows_per_rank if (row := rank.next_row(report))],
            skipped=skipped,
            consumed_samples=sum(rank.consumed_samples for rank in ranks),
            virtual_ranks={rank.number: rank.state() for rank in ranks},
        )

    def close(self) -> None:
        """Shut down the threads."""
        for threads in (self._packing, self._readers):
            threads.shutdown(wait=False, cancel_futures=True)
