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
    of the priority. What is equal at a group's edge is then looked at in full: few rows, or, where the order left no
    room for the priority, so many that they are sorted once more by what did not fit. 100 million rows take about 20
    bytes each beside the arguments, 40 with an order of 64 bits, and some 30 bytes a group.

    Args:
        groups: The number of each row's group, from 0, (rows).
        order: Smallest first; NaN comes last. None: by priority alone. (rows)
        ids: (rows), each once.
        quotas: By group, (groups).
        seed: Of the priority.

    Returns:
        Whether the row is chosen, (rows).
    """
    return _choose(groups, None if order is None else _sortable(order), ids, quotas, seed)


def turns(
    groups: npt.NDArray[np.integer], strata: npt.NDArray[np.integer], ids: Ints, seed: int = 0
) -> npt.NDArray[np.uint32]:
    """In which turn each row comes if the strata of its group take turns: 0 for the first row of a stratum, and so on.

    A stratum's rows come by priority. To `select` by turns is a stratified draw: it takes as many rows of each stratum
    as of the others, or all there are. 100 million rows take about 40 bytes each beside the arguments.

    Args:
        groups: The number of each row's group, from 0, (rows).
        strata: The number of its stratum, from 0, (rows); with the group's in no more than 64 bits.
        ids: (rows), each once.
        seed: Of the priority.

    Returns:
        (rows), from 0.
    """
    keys, _ = _keys(groups, strata.view(np.uint64), ids, int(groups.max(initial=0)) + 1, seed)
    order = np.argsort(keys)
    keys = keys[order]
    tied = np.flatnonzero(keys[1:] == keys[:-1])  # few: alike in all bits of the priority that the key has room for
    tied = np.union1d(tied, tied + 1)
    order[tied] = order[tied[np.lexsort((priority(ids[order[tied]], seed), keys[tied]))]]
    del keys
    first = np.diff(groups[order], prepend=-1) != 0
    first |= np.diff(strata[order], prepend=-1) != 0
    begins = np.flatnonzero(first)
    turn = np.arange(len(order), dtype=np.uint32)
    turn -= np.repeat(begins.astype(np.uint32), np.diff(begins, append=len(order)))
    turns_ = np.empty_like(turn)
    turns_[order] = turn
    return turns_


def _choose(
    groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, quotas: Ints, seed: int
) -> npt.NDArray[np.bool_]:
    """`select` by ranks, which are unsigned."""
    sizes = np.bincount(groups, minlength=len(quotas))
    whole, cut = quotas >= sizes, (quotas > 0) & (quotas < sizes)
    keys, lost = _keys(groups, ranks, ids, len(quotas), seed)
    edges, left = _edges(keys[cut[groups]], sizes, quotas, cut)
    del sizes
    chosen, tied = np.empty(len(ids), bool), []
    for start in range(0, len(ids), _CHUNK):
        rows = slice(start, start + _CHUNK)
        group, edge = groups[rows], edges[groups[rows]]
        chosen[rows] = whole[group] | (keys[rows] < edge)
        tied.append(start + np.flatnonzero((keys[rows] == edge) & (left[group] > 0)))
    del keys, edges, whole, cut
    edge_rows = np.concatenate([*tied, np.zeros(0, np.int64)])
    del tied
    # A row's rank is the same as its neighbours' at the edge, but for the bits that did not fit into the key.
    rest = None if ranks is None or not lost else ranks[edge_rows] & np.uint64((1 << lost) - 1)
    many = ranks is not None and len(edge_rows) > min(len(quotas), _CHUNK)
    del ranks
    pick = _choose if many else _first
    chosen[edge_rows[pick(groups[edge_rows], rest, ids[edge_rows], left, seed)]] = True
    return chosen


def _edges(keys: Hashes, sizes: Ints, quotas: Ints, cut: npt.NDArray[np.bool_]) -> tuple[Hashes, Ints]:
    """For each group that is cut, the key of the last row it keeps, and how many of the rows with that key it keeps.

    Args:
        keys: Of the rows of the groups that are cut; sorted in place.
        sizes: (groups).
        quotas: (groups).
        cut: Whether the group keeps some of its rows, but not all, (groups).
    """
    keys.sort()
    begins = np.cumsum(sizes[cut]) - sizes[cut]
    last = keys[begins + quotas[cut] - 1]
    edges, left = np.zeros(len(quotas), np.uint64), np.zeros(len(quotas), np.int64)
    edges[cut] = last
    left[cut] = quotas[cut] + begins - np.searchsorted(keys, last)
    return edges, left


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
    """Numbers as unsigned integers in the same order, from 0, and no larger than they must be; NaN is the largest."""
    if not len(values):
        return np.zeros(0, np.uint64)
    if values.dtype.kind in "iub":
        codes = values.astype(np.uint64)  # a negative number wraps, and the difference to the smallest wraps back
        codes -= np.uint64(int(values.min()) % 2**64)
        return codes
    floats = np.asarray(values, np.float32 if values.dtype.itemsize <= 4 else np.float64) + 0  # -0 + 0 is 0
    missing = np.isnan(floats)
    kind, sign = (np.uint32, 31) if floats.dtype == np.float32 else (np.uint64, 63)
    codes = floats.view(kind)
    codes ^= -(codes >> kind(sign)) | kind(1 << sign)  # all bits of a negative number, else that of the sign
    # One more than the largest, not 2⁶⁴ - 1: so that the bits of the key are left to the priority.
    codes[missing] = codes.max(where=~missing, initial=0) + kind(1)
    codes -= codes.min()
    return codes


def _keys(
    groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, count: int, seed: int
) -> tuple[Hashes, int]:
    """For each row its group, its rank, its priority, most significant first, as far as 64 bits go.

    Returns:
        The keys, and how many low bits of the rank did not fit.
    """
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
            key |= _shift(priority(ids[rows], seed), free - 64)
        keys[rows] = key
    return keys, max(-free, 0)


def _shift(numbers: Hashes, bits: int) -> Hashes:
    """To the left, or, by a negative number of bits, to the right; all the way out is 0."""
    if abs(bits) >= 64:
        return np.zeros_like(numbers)
    return numbers << np.uint64(bits) if bits >= 0 else numbers >> np.uint64(-bits)


def _first(
    groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, left: Ints, seed: int
) -> npt.NDArray[np.bool_]:
    """`_choose` by a plain sort of few rows: those that come first, as many of a group as `left` says."""
    hashes = priority(ids, seed)
    order = np.lexsort((hashes, groups) if ranks is None else (hashes, ranks, groups))
    group = groups[order]
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    rank = np.arange(len(group)) - np.repeat(begins, np.diff([*begins, len(group)]))
    first = np.zeros(len(ids), bool)
    first[order[rank < left[group]]] = True
    return first
