"""The order of samples: a pure function of (seed, index), and so the same for any number of workers.

The index counts samples through all epochs. An epoch takes a number of samples from each source, as the mixture says,
in slots that are shuffled together. The next epoch continues each source where the last one stopped.

A source is read in passes, independent of epochs. In a pass each row comes once. Its blocks (row groups) are in random
order, and the rows of a window of consecutive blocks are shuffled together, so only one window must be in memory.

The constants 1, 2 and 3 in seeds keep the random streams of blocks, windows and epochs apart.
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

_CHUNK = 4096  # slots whose sources are counted together, so that a slot is found without counting all before it


class SourceOrder:
    """The order of one source's rows, pass after pass.

    Attributes:
        held_out: Rows that are never trained on, ascending.
        rows: Number of rows in a pass: all but the held-out ones.
    """

    def __init__(self, source: Source, held_out: int, seed: int, held_out_seed: int, window: int) -> None:
        """Choose the held-out rows. They depend only on their number, `held_out_seed` and the number of samples.

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
        held_out_before = np.searchsorted(self.held_out, self._starts)
        self._sizes = np.diff(self._starts) - np.diff(held_out_before)  # of each block, without held-out rows
        self.rows = total - held_out
        self._pass = lru_cache(2)(self._plan_pass)
        self._window_rows = lru_cache(4)(self._shuffle_window)

    def row(self, count: int) -> int:
        """Return the row of the source's sample number `count`, counted from 0 through all passes."""
        pass_number, offset = divmod(count, self.rows)
        _, window_ends = self._pass(pass_number)
        window = int(np.searchsorted(window_ends, offset, side="right"))
        window_start = window_ends[window - 1] if window else 0
        return int(self._window_rows(pass_number, window)[offset - window_start])

    def _plan_pass(self, pass_number: int) -> tuple[Ints, Ints]:
        """Return a pass's block order, and the cumulative number of rows at the end of each window."""
        blocks = np.random.default_rng([*self._seed, 1, pass_number]).permutation(len(self._sizes))
        window_firsts = np.arange(0, len(blocks), self._window)
        return blocks, np.cumsum(np.add.reduceat(self._sizes[blocks], window_firsts))

    def _shuffle_window(self, pass_number: int, window: int) -> Ints:
        """Return the rows of a window, shuffled."""
        blocks = self._pass(pass_number)[0][window * self._window : (window + 1) * self._window]
        rows = np.concatenate([np.arange(self._starts[block], self._starts[block + 1]) for block in blocks])
        rows = rows[~np.isin(rows, self.held_out)]
        return rows[np.random.default_rng([*self._seed, 2, pass_number, window]).permutation(len(rows))]


class MixtureSampler:
    """The order of samples of a mixture.

    Attributes:
        sources: The sources of the mixture.
        source_orders: One `SourceOrder` per source.
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
        self.source_orders = [
            SourceOrder(source, held_out.get(source.name, 0), seed, held_out_seed, window) for source in self.sources
        ]
        shares = [mixture[source.name] for source in self.sources]
        self.counts = [
            share.samples or max(round((share.weight or 0) * source_order.rows), 1)
            for share, source_order in zip(shares, self.source_orders, strict=True)
        ]
        self.epoch_length = sum(self.counts)
        self._seed = seed
        self._epoch = lru_cache(2)(self._plan_epoch)

    def __call__(self, index: int) -> tuple[int, int]:
        """Return where the sample with this index (0 or more) is: the position in `sources`, and the source's row."""
        epoch, slot = divmod(index, self.epoch_length)
        slots, counts_before = self._epoch(epoch)
        source = int(slots[slot])
        chunk = slot // _CHUNK
        before = int(counts_before[chunk, source]) + int(np.count_nonzero(slots[chunk * _CHUNK : slot] == source))
        return source, self.source_orders[source].row(epoch * self.counts[source] + before)

    def counts_before(self, index: int) -> list[int]:
        """Return how many samples of each source stand before an index of the order."""
        epoch, slot = divmod(index, self.epoch_length)
        counts = np.array(self.counts, dtype=np.int64) * epoch
        if slot:
            slots, counts_before = self._epoch(epoch)
            chunk = slot // _CHUNK
            counts += counts_before[chunk] + np.bincount(slots[chunk * _CHUNK : slot], minlength=len(counts))
        return [int(count) for count in counts]

    def _plan_epoch(self, epoch: int) -> tuple[Ints, Ints]:
        """Return the source of each slot of an epoch (1 or 2 bytes each), and each source's count before each chunk."""
        kind = np.uint8 if len(self.counts) <= 256 else np.uint16
        slots: Ints = np.repeat(np.arange(len(self.counts), dtype=kind), self.counts)
        np.random.default_rng([self._seed, 3, epoch]).shuffle(slots)
        chunks = [slots[start : start + _CHUNK] for start in range(0, len(slots), _CHUNK)]
        counts = np.array([np.bincount(chunk, minlength=len(self.counts)) for chunk in chunks])
        return slots, np.cumsum(counts, axis=0) - counts
