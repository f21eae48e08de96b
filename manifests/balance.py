"""Balanced sampling: how many rows each group keeps, and which. It is exact and independent of the order of rows.

*Water-filling*: every group keeps all its rows up to a cap, and the cap is as high as the total allows. This
generalises "a fixed number of images from each cluster" (VideoLLaMA 3, arXiv 2501.13106, section 2.3) so that any total
is reached exactly. Vo et al. 2024 (arXiv 2405.15613, section 3.3) do the same at each node of a hierarchy.

Random choices use a hash of the row's id and a seed. So they depend only on the set of rows, not on their order, on
shards or on workers. If a pool grows, the choice changes only at the edge of each quota.
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
_CHUNK = 1 << 22  # rows processed at once, so that temporary arrays stay small


def priority(ids: npt.NDArray[np.integer], seed: int = 0) -> Hashes:
    """Return a hash of each id. A random choice takes the lowest hashes first.

    The hash is the output of splitmix64 for the state id + seed · increment (Steele, Lea and Flood 2014, Fast
    splittable pseudorandom number generators, OOPSLA). It is a bijection of 64 bits: under one seed, no two ids have
    the same hash.

    Args:
        ids: 64-bit ids, any shape.
        seed: An integer from 0.
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
    """Return a hash of each group's name: `priority` for integers, BLAKE2b of the text for other types."""
    if names.dtype.is_integer():
        return priority(names.cast(pl.Int64).to_numpy(), seed)
    key = seed.to_bytes(8, "little")
    texts = names.cast(pl.String).to_list()
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def caps(sizes: Ints, total: int, priorities: Hashes) -> Ints:
    """Return how many rows each group keeps, so that all groups together keep `total` rows, or all rows.

    The cap x is the largest integer with Σ min(x, size) ≤ total. The remainder is given to the groups that are larger
    than x: one more row each, lowest priority first.

    Args:
        sizes: Number of rows in each group, (groups).
        total: Number of rows to keep, from 0.
        priorities: Hash of each group, (groups).

    Returns:
        Quotas, (groups). None exceeds `sizes`, and their sum is min(total, Σ sizes).
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
    """Apply `caps` from the top of a hierarchy down: first over the top groups, then each quota over its children.

    Args:
        sizes: Number of rows in each of the lowest groups, (groups).
        parents: For each level below the top, lowest first: the index of each group's parent in the level above,
            (groups of that level).
        total: Number of rows to keep.
        priorities: Hashes of the groups of each level, lowest first; one array more than `parents`.

    Returns:
        Quotas of the lowest groups, as `caps` returns them.
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
    """Choose the first rows of each group, up to its quota, by order and then by priority.

    Only one 64-bit key per row is sorted. Its high bits are the group; then come as many bits of the order and of the
    priority as fit. Ties at the edge of a quota are resolved by a second sort, on the bits that did not fit. Usually
    few rows are tied; there are many if the order leaves no bits for the priority. For 100 million rows this takes
    about 20 bytes per row besides the arguments, 40 with a 64-bit order, and some 30 bytes per group.

    Args:
        groups: Index of each row's group, from 0, (rows).
        order: Sort value of each row, (rows). Smallest first, NaN last. None: by priority alone.
        ids: Unique ids, (rows).
        quotas: Number of rows to choose from each group, (groups).
        seed: Seed of the priority.

    Returns:
        Whether each row is chosen, (rows).
    """
    return _choose(groups, None if order is None else _sortable(order), ids, quotas, seed)


def turns(
    groups: npt.NDArray[np.integer], strata: npt.NDArray[np.integer], ids: Ints, seed: int = 0
) -> npt.NDArray[np.uint32]:
    """Return the position of each row in its stratum: 0 for the first row, by priority, 1 for the second, and so on.

    `select` with these turns as the order is a stratified draw: it takes the same number of rows from each stratum of a
    group, or all rows of a small stratum. For 100 million rows this takes about 40 bytes per row besides the arguments.

    Args:
        groups: Index of each row's group, from 0, (rows).
        strata: Index of each row's stratum, from 0, (rows). Group and stratum together must fit into 64 bits.
        ids: Unique ids, (rows).
        seed: Seed of the priority.

    Returns:
        Turns from 0, (rows).
    """
    keys, _ = _keys(groups, strata.view(np.uint64), ids, int(groups.max(initial=0)) + 1, seed)
    order = np.argsort(keys)
    keys = keys[order]
    tied = np.flatnonzero(keys[1:] == keys[:-1])  # few rows: they agree in all priority bits that fit into the key
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
    """Do what `select` does, with unsigned ranks as the order."""
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
    # Tied rows of a group have the same rank, except for the bits that did not fit into the key.
    rest = None if ranks is None or not lost else ranks[edge_rows] & np.uint64((1 << lost) - 1)
    many = ranks is not None and len(edge_rows) > min(len(quotas), _CHUNK)
    del ranks
    pick = _choose if many else _first
    chosen[edge_rows[pick(groups[edge_rows], rest, ids[edge_rows], left, seed)]] = True
    return chosen


def _edges(keys: Hashes, sizes: Ints, quotas: Ints, cut: npt.NDArray[np.bool_]) -> tuple[Hashes, Ints]:
    """Return for each cut group the key of the last row it keeps, and how many of the rows with that key it keeps.

    Args:
        keys: Keys of the rows in cut groups; sorted in place.
        sizes: Number of rows in each group, (groups).
        quotas: Number of rows that each group keeps, (groups).
        cut: Whether a group keeps some of its rows, but not all, (groups).
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
    """Share each parent's quota over its children with `caps`."""
    order = np.argsort(parent, kind="stable")
    shared = np.zeros(len(sizes), np.int64)
    for children in np.split(order, np.flatnonzero(np.diff(parent[order])) + 1) if len(order) else ():
        shared[children] = caps(sizes[children], int(quotas[parent[children[0]]]), priorities[children])
    return shared


def _sortable(values: npt.NDArray[np.generic]) -> Hashes:
    """Map numbers to unsigned integers in the same order. The smallest becomes 0, and NaN becomes the largest."""
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
    codes ^= -(codes >> kind(sign)) | kind(1 << sign)  # flip all bits of a negative number, else only the sign bit
    # NaN becomes the largest code + 1 and not 2⁶⁴ - 1, so that the key has bits left for the priority.
    codes[missing] = codes.max(where=~missing, initial=0) + kind(1)
    codes -= codes.min()
    return codes


def _keys(
    groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, count: int, seed: int
) -> tuple[Hashes, int]:
    """Pack group, rank and priority of each row into one 64-bit key, most significant first, as far as they fit.

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
    """Shift to the left, or by a negative number of bits to the right. A shift by 64 bits or more gives 0."""
    if abs(bits) >= 64:
        return np.zeros_like(numbers)
    return numbers << np.uint64(bits) if bits >= 0 else numbers >> np.uint64(-bits)


def _first(
    groups: npt.NDArray[np.integer], ranks: Hashes | None, ids: Ints, left: Ints, seed: int
) -> npt.NDArray[np.bool_]:
    """Do what `_choose` does for few rows, by a plain sort: choose the first `left` rows of each group."""
    hashes = priority(ids, seed)
    order = np.lexsort((hashes, groups) if ranks is None else (hashes, ranks, groups))
    group = groups[order]
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    rank = np.arange(len(group)) - np.repeat(begins, np.diff([*begins, len(group)]))
    first = np.zeros(len(ids), bool)
    first[order[rank < left[group]]] = True
    return first
