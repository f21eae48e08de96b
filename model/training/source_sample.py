"""A random sample of each source of a stage, measured by several threads."""

from __future__ import annotations

import copy
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest

import numpy as np

from core.errors import BadSampleError
from model.training.data.measurement import Measured, ObservedProcessor, measure
from model.training.data.sampler import SourceOrder
from model.training.data.samples import Sample
from model.training.stage_plan import StagePlan

_FEWEST = 8  # samples of a source that are measured whatever the time limit

Progress = Callable[[int, int], None]
"""Is told how many samples of a stage are measured, and of how many."""


class Measurer:
    """Measures rows of the sources of all stages. A row that two stages prepare alike is measured once."""

    def __init__(self, threads: int) -> None:
        """Start so many threads."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="measure")
        self._width, self._local = 4 * threads, threading.local()
        self._stored: dict[tuple[str, str, int], Measured] = {}

    def close(self) -> None:
        """Shut down the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def one(self, plan: StagePlan, source: int, row: int) -> Measured:
        """Measure one row of the source with this number."""
        settings = plan_key(plan)
        key = (settings, plan.sampler.sources[source].name, row)
        if key not in self._stored:
            self._stored[key] = self._measure(plan, settings, source, row)
        return self._stored[key]

    def _measure(self, plan: StagePlan, settings: str, source: int, row: int) -> Measured:
        processors: dict[str, ObservedProcessor] = vars(self._local).setdefault("processors", {})
        if settings not in processors:  # threads must not share a tokenizer
            processors.clear()
            processors[settings] = ObservedProcessor(copy.deepcopy(plan.processor))
        return measure(processors[settings], read(plan, source, row), plan.stage)

    def rows(
        self, plan: StagePlan, wanted: Sequence[Sequence[int]], deadline: float, progress: Progress
    ) -> list[dict[int, Measured]]:
        """Measure rows of each source, until the deadline has passed and each source has some.

        Args:
            plan: The stage.
            wanted: Rows of each source, in random order.
            deadline: Of `time.monotonic`.
            progress: Is told how far it is.
        """
        measured: list[dict[int, Measured]] = [{} for _ in wanted]
        jobs, done = list(_jobs(wanted, in_order=deadline == float("inf"))), 0
        for start in range(0, len(jobs), self._width):
            batch = jobs[start : start + self._width]
            if time.monotonic() > deadline:
                batch = [(source, row) for source, row in batch if len(measured[source]) < _FEWEST]
            results = self._threads.map(lambda job: self.one(plan, *job), batch)
            for (source, row), one in zip(batch, results, strict=True):
                measured[source][row] = one
            done += len(batch)
            progress(done, len(jobs))
        return measured


def read(plan: StagePlan, source: int, row: int) -> Sample | BadSampleError:
    """Return a sample, or why it is bad."""
    try:
        return plan.sampler.sources[source].sample(row)
    except BadSampleError as error:
        return error


def plan_key(plan: StagePlan) -> str:
    """Return a text that is the same for two stages that prepare samples alike."""
    return f"{plan.processor.config.model_dump_json()} {plan.stage.tokens} {plan.stage.patch_budget}"


def _jobs(wanted: Sequence[Sequence[int]], in_order: bool) -> Iterator[tuple[int, int]]:
    """Yield (source, row): in order, since neighbours are read together, or the sources by turns."""
    pairs = [[(source, row) for row in rows] for source, rows in enumerate(wanted)]
    if in_order:
        return chain.from_iterable(sorted(jobs) for jobs in pairs)
    return (job for jobs in zip_longest(*pairs) for job in jobs if job is not None)


def choose(order: SourceOrder, positions: int, size: int, seed: Sequence[int]) -> list[int]:
    """Choose different rows at random among those of the source's first `positions` samples in the order.

    Args:
        order: The order of the source.
        positions: Number of samples; at most those of one pass count, since the next pass repeats them.
        size: Number of rows, if there are so many.
        seed: Seed of the choice.
    """
    distinct = min(positions, order.rows)
    chosen = np.random.default_rng(seed).choice(distinct, min(size, distinct), replace=False)
    return [order.row(int(position)) for position in chosen]


class SourceSample:
    """The measured rows of one source, and stand-ins for the others.

    Attributes:
        measured: The measured rows.
        distinct: Number of different rows of the source in the stage.
        drawn: Number of samples for which a stand-in was taken.
    """

    def __init__(
        self, measured: Mapping[int, Measured], distinct: int, missing: Callable[[int], Measured], seed: Sequence[int]
    ) -> None:
        """Begin with measured rows; if these are all, `missing` measures a further one."""
        self.measured, self.distinct, self.drawn = dict(measured), distinct, 0
        self._missing, self._dice = missing, np.random.default_rng(seed)
        self._pool, self._turn = list(self.measured.values()), list[int]()

    @property
    def whole(self) -> bool:
        """Whether all rows are measured."""
        return len(self._pool) >= self.distinct

    def __call__(self, row: int) -> Measured:
        """Return the sizes of a row. One that was not measured has those of a measured one, by turns at random."""
        if row in self.measured:
            return self.measured[row]
        if self.whole:
            self.measured[row] = self._missing(row)
            return self.measured[row]
        self.drawn += 1
        if not self._turn:
            self._turn = self._dice.permutation(len(self._pool)).tolist()
        return self._pool[self._turn.pop()]


def seed_of(plan: StagePlan, source: str, purpose: int) -> list[int]:
    """Return the seed of a random choice among the samples of a source."""
    return [plan.recipe.seed, plan.number, zlib.crc32(source.encode()), purpose]
