"""The order of samples: a pure function of (seed, index), so it is the same for any number of workers.

One index counts samples through all epochs. The mixture says how many samples of each source an epoch has; they are
shuffled together. A source is read in passes: its blocks (row groups) come in random order, and the rows of a window of
consecutive blocks are shuffled together, so only one window must be in memory. The next epoch continues a source where
the last one stopped. No sample repeats before the pass is complete.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from model.training.data.source import Source
from model.training.stage import Share

Ints = NDArray[np.integer]

_CHUNK = 4096


class EpochPermutation:
    """The order of one source's rows, pass after pass.

    Attributes:
        held_out: Rows that are never trained on, ascending.
        rows: Number of rows in a pass.
    """

    def __init__(self, source: Source, held_out: int, seed: int, held_out_seed: int, window: int) -> None:
        """Choose the held-out rows. They depend only on `held_out_seed` and the number of samples.

        So two sources made from one dataset, such as its short and its detailed captions, hold out the same images.

        Raises:
            UserError: All samples are held out.
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
        """Return the row of the source's sample number `count`, counted from 0 through all passes."""
        number, offset = divmod(count, self.rows)
        ends = self._plan(number)[1]
        window = int(np.searchsorted(ends, offset, side="right"))
        return int(self._shuffled(number, window)[offset - (ends[window - 1] if window else 0)])

    def _plan_of(self, number: int) -> tuple[Ints, Ints]:
        """Return a pass's block order, and the cumulative number of rows at the end of each window."""
        order = np.random.default_rng([*self._seed, 1, number]).permutation(len(self._sizes))
        firsts = np.arange(0, len(order), self._window)
        return order, np.cumsum(np.add.reduceat(self._sizes[order], firsts))

    def _shuffled_of(self, number: int, window: int) -> Ints:
        blocks = self._plan(number)[0][window * self._window : (window + 1) * self._window]
        rows = np.concatenate([np.arange(self._starts[b], self._starts[b + 1]) for b in blocks])
        rows = rows[~np.isin(rows, self.held_out)]
        return rows[np.random.default_rng([*self._seed, 2, number, window]).permutation(len(rows))]


class MixtureSampler:
    """The order of samples of a mixture.

    Attributes:
        passes: One `EpochPermutation` per source, in the order of `sources`.
        counts: Samples of each source in an epoch.
        epoch_length: Samples of all sources in an epoch.
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
        """Plan the order of a training stage.

        Args:
            sources: Sources of the mixture.
            mixture: Share of each source, by name.
            held_out: Number of held-out samples of each source, by name.
            seed: Seed of the order.
            held_out_seed: Seed of the held-out choice; the same in all stages of a training.
            window: Number of blocks of a source that are shuffled together.

        Raises:
            UserError: All samples of a source are held out.
        """
        self.sources = list(sources)
        self.passes = [
            EpochPermutation(source, held_out.get(source.name, 0), seed, held_out_seed, window)
            for source in self.sources
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
        """Return the source's number and the row of the sample with this index (0 or more)."""
        epoch, slot = divmod(index, self.epoch_length)
        slots, before = self._slots(epoch)
        number = int(slots[slot])
        chunk = slot // _CHUNK
        rank = int(before[chunk, number]) + int(np.count_nonzero(slots[chunk * _CHUNK : slot] == number))
        return number, self.passes[number].row(epoch * self.counts[number] + rank)

    def _slots_of(self, epoch: int) -> tuple[Ints, Ints]:
        """Return the source of each slot of an epoch (1 or 2 bytes each), and each source's count before each chunk."""
        kind = np.uint8 if len(self.counts) <= 256 else np.uint16
        slots: Ints = np.repeat(np.arange(len(self.counts), dtype=kind), self.counts)
        np.random.default_rng([self._seed, 3, epoch]).shuffle(slots)
        chunks = [slots[at : at + _CHUNK] for at in range(0, len(slots), _CHUNK)]
        counted = np.array([np.bincount(chunk, minlength=len(self.counts)) for chunk in chunks])
        return slots, np.cumsum(counted, axis=0) - counted
