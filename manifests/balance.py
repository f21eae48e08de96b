"""Balanced sampling: how many rows each group may keep, and which; exact, and the same in whatever order rows come.

*Water-filling*: every group keeps all it has up to a cap, and the cap is as high as the total allows. It is the
general form of "a fixed number of images from each cluster" (VideoLLaMA 3, arXiv 2501.13106, section 2.3) that reaches
any total exactly, and what Vo et al. 2024 (arXiv 2405.15613, section 3.3) do at each node of a hierarchy.

Chance is a hash: of the row's id and a seed. So a choice depends on nothing but the rows that are there: not on
their order, on shards or on workers. A pool that grows changes it only at the edge of each quota.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment, 2⁶⁴ / φ
_CHUNK = 1 << 22  # rows that are hashed at once, so that temporaries stay small


def priority(ids: npt.NDArray[np.integer], seed: int = 0) -> Hashes:
    """A hash of each id, lowest first in any random choice: splitmix64's output for the state id + seed · increment.

    (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators, OOPSLA.) It is a bijection of 64 bits:
    under one seed no two ids have the same.

    Args:
        ids: 64 bits each, any shape.
        seed: From 0.
    """
    states = np.ascontiguousarray(ids, np.int64).view(np.uint64)
    hashes = np.empty_like(states)
    offset = np.uint64((seed + 1) * _GOLDEN % 2**64)
    for start in range(0, len(states), _CHUNK):
        z = states[start : start + _CHUNK] + offset
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        hashes[start : start + _CHUNK] = z
    return hashes


def name_priority(names: pl.Series, seed: int = 0) -> Hashes:
    """A hash of each group's name: of integers as for ids, of all else BLAKE2b of their text."""
    if names.dtype.is_integer():
        return priority(names.cast(pl.Int64).to_numpy(), seed)
    key = seed.to_bytes(8, "little")
    texts = names.cast(pl.String).to_list()
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def caps(sizes: Ints, total: int, priorities: Hashes) -> Ints:
    """How many rows each group keeps, so that together they keep `total`, or all there are.

    The cap x is the largest integer with Σ min(x, size) ≤ total; what is left over is one more each for the groups
    above x whose priority is lowest.

    Args:
        sizes: Rows of each group, (groups).
        total: Rows to keep, from 0.
        priorities: Of the groups, (groups).

    Returns:
        (groups), no more than `sizes`, with the sum min(total, Σ sizes).
    """
    total = min(total, int(sizes.sum()))
    cap = _cap(sizes, total)
    quotas = np.minimum(sizes, cap)
    above = np.flatnonzero(sizes > cap)
    left = total - int(quotas.sum())
    if left:
        quotas[above[np.argsort(priorities[above], kind="stable")[:left]]] += 1
    return quotas


def nested_caps(sizes: Ints, parents: Sequence[Ints], total: int, priorities: Sequence[Hashes]) -> Ints:
    """`caps` from the top of a hierarchy down: over its top groups, then each one's quota over its children, and so on.

    Args:
        sizes: Rows of each of the lowest groups, (groups).
        parents: For each level but the top, lowest first: the number of each group's parent in the level above, (groups
            of that level).
        total: Rows to keep.
        priorities: Of the groups of each level, lowest first: one more than `parents`.

    Returns:
        As `caps`.
    """
    levels = [sizes]
    for parent, above in zip(parents, priorities[1:], strict=True):
        levels.append(np.bincount(parent, weights=levels[-1], minlength=len(above)).astype(np.int64))
    quotas = caps(levels[-1], total, priorities[-1])
    for parent, below, first in zip(reversed(parents), reversed(levels[:-1]), reversed(priorities[:-1]), strict=True):
        quotas = _share_out(below, parent, quotas, first)
    return quotas


def select(
    groups: npt.NDArray[np.integer], order: npt.NDArray[np.generic] | None, ids: Ints, quotas: Ints, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """The first rows of each group, as many as its quota: by order, then priority.

    Nothing is sorted but one number of 64 bits a row: the group in its high bits, then as much as fits of the order and
    of the priority. What is equal at a group's edge, few rows, is then looked at in full. 100 million rows take about
    20 bytes each beside the arguments.

    Args:
        groups: The number of each row's group, from 0, (rows).
        order: Smallest first; NaN comes last. None: by priority alone. (rows)
        ids: (rows), each once.
        quotas: By group, (groups).
        seed: Of the priority.

    Returns:
        Whether the row is chosen, (rows).
    """
    sizes = np.bincount(groups, minlength=len(quotas))
    ranks = None if order is None else _sortable(order)
    keys = _keys(groups, ranks, ids, len(quotas), seed)
    cut = np.flatnonzero((quotas > 0) & (quotas < sizes))
    starts = np.cumsum(sizes)[cut] - sizes[cut]
    in_order = np.sort(keys)
    edges = np.zeros(len(quotas), np.uint64)  # the key of the last row that a group keeps
    edges[cut] = in_order[starts + quotas[cut] - 1]
    left = np.zeros(len(quotas), np.int64)  # how many of the rows that have this key it keeps
    left[cut] = quotas[cut] - (np.searchsorted(in_order, edges[cut]) - starts)
    del in_order
    whole = quotas >= sizes
    chosen, tied = np.empty(len(ids), bool), []
    for start in range(0, len(ids), _CHUNK):
        rows = slice(start, start + _CHUNK)
        own, edge = groups[rows], edges[groups[rows]]
        chosen[rows] = whole[own] | (keys[rows] < edge)
        tied.append(start + np.flatnonzero((keys[rows] == edge) & (left[own] > 0)))
    edge_rows = np.concatenate([*tied, np.zeros(0, np.int64)])
    chosen[edge_rows[_first(edge_rows, groups, ranks, ids, left, seed)]] = True
    return chosen


def _cap(sizes: Ints, total: int) -> int:
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(sizes, middle).sum()) <= total:
            low = middle
        else:
            high = middle - 1
    return low


def _share_out(sizes: Ints, parent: Ints, quotas: Ints, priorities: Hashes) -> Ints:
    """Each parent's quota over its children, by `caps`."""
    order = np.argsort(parent, kind="stable")
    shared = np.zeros(len(sizes), np.int64)
    for children in np.split(order, np.flatnonzero(np.diff(parent[order])) + 1) if len(order) else ():
        shared[children] = caps(sizes[children], int(quotas[parent[children[0]]]), priorities[children])
    return shared


def _sortable(values: npt.NDArray[np.generic]) -> Hashes:
    """Numbers as unsigned integers in the same order, from 0; NaN becomes the largest."""
    if values.dtype.kind in "iub":
        codes = values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    else:
        floats = np.asarray(values, np.float32 if values.dtype.itemsize <= 4 else np.float64) + 0  # -0 + 0 is 0
        kind, sign = (np.uint32, 31) if floats.dtype == np.float32 else (np.uint64, 63)
        codes = floats.view(kind)
        negative = (codes >> kind(sign)).astype(bool)
        codes = np.where(negative, ~codes, codes | kind(1 << sign))
        codes[np.isnan(floats)] = np.iinfo(kind).max
    return codes - codes.min() if len(codes) else codes


def _keys(groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, count: int, seed: int) -> Hashes:
    """For each row its group, its rank, its priority, most significant first, as far as 64 bits go."""
    group_bits = max(count - 1, 0).bit_length()
    rank_bits = 0 if ranks is None or not len(ranks) else int(ranks.max()).bit_length()
    free = 64 - group_bits - rank_bits
    keys = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), _CHUNK):
        rows = slice(start, start + _CHUNK)
        key = _shift(groups[rows].astype(np.uint64), 64 - group_bits)
        if ranks is not None:
            key |= _shift(ranks[rows].astype(np.uint64), free)
        if free > 0:
            key |= priority(ids[rows], seed) >> np.uint64(64 - free) if free < 64 else priority(ids[rows], seed)
        keys[rows] = key
    return keys


def _shift(numbers: Hashes, bits: int) -> Hashes:
    """To the left, or, by a negative number of bits, to the right; all the way out is 0."""
    if abs(bits) >= 64:
        return np.zeros_like(numbers)
    return numbers << np.uint64(bits) if bits >= 0 else numbers >> np.uint64(-bits)


def _first(
    rows: Ints, groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, left: Ints, seed: int
) -> npt.NDArray[np.bool_]:
    """Of rows (all of a group have one key), those that come first: as many of a group as `left` says."""
    own, hashes = groups[rows], priority(ids[rows], seed)
    order = np.lexsort((hashes, own) if ranks is None else (hashes, ranks[rows], own))
    own = own[order]
    begins = np.flatnonzero(np.diff(own, prepend=-1))
    place = np.arange(len(own)) - np.repeat(begins, np.diff([*begins, len(own)]))
    first = np.zeros(len(rows), bool)
    first[order[place < left[own]]] = True
    return first
