"""In which order samples are seen: a pure function of (seed, index), so that any number of workers sees the same.

Samples are counted by one index through all epochs. An epoch has so many samples of each source as the mixture says,
shuffled together. A source is gone through in passes: its blocks (row groups) in random order, and the rows of some
neighbouring blocks at a time, so that no more than these have to be in memory. What an epoch leaves of a source comes
in the next; nothing comes twice before everything has come once.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from core.errors import UserError
from model.training.samples import Sample
from model.training.stage import Share

Ints = Any
"""An integer array of numpy."""

_CHUNK = 4096


class Source(Protocol):
    """What has samples, in blocks that are read together: `ShardSource`, `AnnotationSource`."""

    @property
    def name(self) -> str:
        """Of the source."""
        ...

    @property
    def blocks(self) -> Sequence[int]:
        """Samples of each block."""
        ...

    def sample(self, row: int) -> Sample:
        """One; a BadSampleError that names it if it is bad. Called by several threads."""
        ...


class Passes:
    """One source, pass after pass.

    Attributes:
        held_out: Rows that are never given out, ascending.
        rows: How many are, in a pass.
    """

    def __init__(self, source: Source, held_out: int, seed: int, held_out_seed: int, window: int) -> None:
        """Choose what is held out: of so many samples always the same with the same seed for it.

        So two sources out of one dataset, such as its short and its detailed captions, hold out the same images.

        Raises:
            UserError: Nothing is left to train on.
        """
        self._starts = np.concatenate(([0], np.cumsum(source.blocks))).astype(np.int64)
        total = int(self._starts[-1])
        if held_out >= total:
            raise UserError(f"source {source.name}: {total} samples, {held_out} held out: nothing is left to train on")
        self._seed, self._window = [seed, zlib.crc32(source.name.encode())], window
        self.held_out: Ints = np.sort(np.random.default_rng([held_out_seed, total]).permutation(total)[:held_out])
        held = np.searchsorted(self.held_out, self._starts)
        self._sizes = np.diff(self._starts) - np.diff(held)
        self.rows = total - held_out
        self._plan = lru_cache(2)(self._plan_of)
        self._shuffled = lru_cache(4)(self._shuffled_of)

    def row(self, count: int) -> int:
        """The row that comes `count` samples after the first of all."""
        number, place = divmod(count, self.rows)
        ends = self._plan(number)[1]
        window = int(np.searchsorted(ends, place, side="right"))
        return int(self._shuffled(number, window)[place - (ends[window - 1] if window else 0)])

    def _plan_of(self, number: int) -> tuple[Ints, Ints]:
        """Of a pass: its blocks in order, and where each window of them ends."""
        order = np.random.default_rng([*self._seed, 1, number]).permutation(len(self._sizes))
        firsts = np.arange(0, len(order), self._window)
        return order, np.cumsum(np.add.reduceat(self._sizes[order], firsts))

    def _shuffled_of(self, number: int, window: int) -> Ints:
        blocks = self._plan(number)[0][window * self._window : (window + 1) * self._window]
        rows = np.concatenate([np.arange(self._starts[b], self._starts[b + 1]) for b in blocks])
        rows = rows[~np.isin(rows, self.held_out)]
        return rows[np.random.default_rng([*self._seed, 2, number, window]).permutation(len(rows))]


class Order:
    """A mixture of sources.

    Attributes:
        passes: Of each source, in the mixture's order.
        counts: Samples of each in an epoch.
        epoch_length: Their sum.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        mixture: Mapping[str, Share],
        held_out: Mapping[str, int],
        seed: int,
        held_out_seed: int = 0,
        window: int = 4,
    ) -> None:
        """Plan the order of a stage.

        Args:
            sources: Those of the mixture.
            mixture: Share of each, by name.
            held_out: How many samples of each are not trained on.
            seed: Of the order.
            held_out_seed: Of what is held out, the same in all stages of a training.
            window: Blocks of a source that are shuffled together.

        Raises:
            UserError: A source has nothing to train on.
        """
        self.sources = list(sources)
        self.passes = [
            Passes(source, held_out.get(source.name, 0), seed, held_out_seed, window) for source in self.sources
        ]
        shares = [mixture[source.name] for source in self.sources]
        self.counts = [
            share.samples or max(round((share.weight or 0) * each.rows), 1)
            for share, each in zip(shares, self.passes, strict=True)
        ]
        self.epoch_length = sum(self.counts)
        self._seed = seed
        self._slots = lru_cache(2)(self._slots_of)

    def __call__(self, index: int) -> tuple[int, int]:
        """The source, by its number, and the row of the sample with this index, 0 and up."""
        epoch, slot = divmod(index, self.epoch_length)
        slots, before = self._slots(epoch)
        number = int(slots[slot])
        chunk = slot // _CHUNK
        rank = int(before[chunk, number]) + int(np.count_nonzero(slots[chunk * _CHUNK : slot] == number))
        return number, self.passes[number].row(epoch * self.counts[number] + rank)

    def _slots_of(self, epoch: int) -> tuple[Ints, Ints]:
        """Of an epoch, the source of each slot (a byte or two per sample), and how many of each were before a chunk."""
        kind = np.uint8 if len(self.counts) <= 256 else np.uint16
        slots = np.repeat(np.arange(len(self.counts), dtype=kind), self.counts)
        np.random.default_rng([self._seed, 3, epoch]).shuffle(slots)
        chunks = [slots[at : at + _CHUNK] for at in range(0, len(slots), _CHUNK)]
        counted = np.array([np.bincount(chunk, minlength=len(self.counts)) for chunk in chunks])
        return slots, np.cumsum(counted, axis=0) - counted
