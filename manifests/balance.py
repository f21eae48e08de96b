"""Balanced sampling: how many rows each group keeps, and which. It is exact and independent of the order of rows.

*Water-filling*: every group keeps all its rows up to a cap, and the cap is as high as the total allows. This
generalises "a fixed number of images from each cluster" (VideoLLaMA 3, arXiv 2501.13106, section 2.3) so that any total
is reached exactly. Vo et al. 2024 (arXiv 2405.15613, section 3.3) do the same at each node of a hierarchy.

Random choices are by priority (manifests/priorities.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manifests.priorities import CHUNK, Priorities, priority
from manifests.sort_keys import KeyLayout, Keys, ranks_of

Ints = npt.NDArray[np.int64]


def even_quotas(sizes: Ints, total: int, priorities: Priorities) -> Ints:
    """Return how many rows each group keeps, so that all groups together keep `total` rows, or all rows.

    The cap x is the largest integer with Σ min(x, size) ≤ total. The remainder is given to the groups that are larger
    than x: one more row each, lowest priority first.

    Args:
        sizes: Number of rows in each group, (groups).
        total: Number of rows to keep, from 0.
        priorities: Priority of each group, (groups).

    Returns:
        Quotas, (groups). None exceeds `sizes`, and their sum is min(total, Σ sizes).
    """
    total = min(total, int(sizes.sum()))
    cap = _cap(sizes, total)
    quotas = np.minimum(sizes, cap)
    larger = np.flatnonzero(sizes > cap)
    remainder = total - int(quotas.sum())
    if remainder:
        quotas[larger[np.argsort(priorities[larger], kind="stable")[:remainder]]] += 1
    return quotas


def nested_quotas(sizes: Ints, parents: Sequence[Ints], total: int, priorities: Sequence[Priorities]) -> Ints:
    """Apply `even_quotas` from the top of a hierarchy down: to the top groups, then to the children of each group.

    Args:
        sizes: Number of rows in each of the lowest groups, (groups).
        parents: For each level below the top, lowest first: the index of each group's parent in the level above,
            (groups of that level).
        total: Number of rows to keep, from 0.
        priorities: Priorities of the groups of each level, lowest first; one array more than `parents`.

    Returns:
        Quotas of the lowest groups, as `even_quotas` returns them.
    """
    sizes_by_level = [sizes]
    for parent, above in zip(parents, priorities[1:], strict=True):
        sums = np.bincount(parent, weights=sizes_by_level[-1], minlength=len(above))
        sizes_by_level.append(sums.astype(np.int64))
    quotas = even_quotas(sizes_by_level[-1], total, priorities[-1])
    for level in reversed(range(len(parents))):
        quotas = _share_out(sizes_by_level[level], parents[level], quotas, priorities[level])
    return quotas


def select(
    groups: npt.NDArray[np.integer], order: npt.NDArray[np.generic] | None, ids: Ints, quotas: Ints, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """Choose the first rows of each group, up to its quota, by order and then by priority.

    For 100 million rows this takes about 20 bytes per row besides the arguments, 40 with a 64-bit order, and some 30
    bytes per group.

    Args:
        groups: Index of each row's group, from 0, (rows).
        order: Sort value of each row, (rows). Smallest first, NaN last. None: by priority alone.
        ids: Unique ids, (rows).
        quotas: Number of rows to choose from each group, (groups).
        seed: Seed of the priority.

    Returns:
        Whether each row is chosen, (rows).
    """
    sizes = np.bincount(groups, minlength=len(quotas))
    whole, cut = quotas >= sizes, (quotas > 0) & (quotas < sizes)  # a cut group keeps some of its rows
    ranks = None if order is None else ranks_of(order)
    keys = KeyLayout.of(len(quotas), ranks).pack(groups, ranks, ids, seed)
    del ranks
    last_keys, tied_quotas = _last_keys(keys[cut[groups]], sizes, quotas, cut)
    chosen, tied_chunks = np.empty(len(ids), bool), [np.zeros(0, np.int64)]
    for start in range(0, len(ids), CHUNK):
        rows = slice(start, start + CHUNK)
        group, last_key = groups[rows], last_keys[groups[rows]]
        chosen[rows] = whole[group] | (keys[rows] < last_key)
        tied_chunks.append(start + np.flatnonzero((keys[rows] == last_key) & cut[group]))
    tied = np.concatenate(tied_chunks)  # rows whose key is the last one of their group; the whole priority decides
    tied = tied[np.lexsort((priority(ids[tied], seed), groups[tied]))]
    group = groups[tied]
    chosen[tied[_positions(np.diff(group, prepend=-1) != 0) < tied_quotas[group]]] = True
    return chosen


def stratum_positions(
    groups: npt.NDArray[np.integer], strata: npt.NDArray[np.integer], ids: Ints, seed: int = 0
) -> npt.NDArray[np.uint32]:
    """Return the position of each row in its stratum of its group, by priority, from 0.

    With these positions as its order, `select` draws a stratified sample: it takes the same number of rows from each
    stratum of a group, or all rows of a small stratum. For 100 million rows this takes about 40 bytes per row besides
    the arguments.

    Args:
        groups: Index of each row's group, from 0, (rows).
        strata: Index of each row's stratum, from 0, (rows).
        ids: Unique ids, (rows).
        seed: Seed of the priority.

    Returns:
        Positions, (rows).
    """
    ranks = strata.astype(np.uint32)
    keys = KeyLayout.of(int(groups.max(initial=0)) + 1, ranks).pack(groups, ranks, ids, seed)
    del ranks
    order = np.argsort(keys)
    keys = keys[order]
    tied = np.flatnonzero(keys[1:] == keys[:-1])
    tied = np.union1d(tied, tied + 1)  # rows with equal keys; the whole priority decides
    order[tied] = order[tied[np.lexsort((priority(ids[order[tied]], seed), keys[tied]))]]
    del keys
    first = np.diff(groups[order], prepend=-1) != 0
    first |= np.diff(strata[order], prepend=-1) != 0
    positions = np.empty(len(order), np.uint32)
    positions[order] = _positions(first)
    return positions


def _last_keys(keys: Keys, sizes: Ints, quotas: Ints, cut: npt.NDArray[np.bool_]) -> tuple[Keys, Ints]:
    """Return for each cut group the key of the last row that it keeps, and how many rows with this key it keeps.

    Args:
        keys: Keys of the rows in cut groups; sorted in place.
        sizes: Number of rows in each group, (groups).
        quotas: Number of rows that each group keeps, (groups).
        cut: Whether a group keeps some of its rows, but not all, (groups).

    Returns:
        Both (groups), 0 for groups that are not cut.
    """
    keys.sort()
    begins = np.cumsum(sizes[cut]) - sizes[cut]  # a group's keys are adjacent, since its index is their high bits
    last_keys, tied_quotas = np.zeros(len(quotas), np.uint64), np.zeros(len(quotas), np.int64)
    last_keys[cut] = keys[begins + quotas[cut] - 1]
    tied_quotas[cut] = quotas[cut] + begins - np.searchsorted(keys, last_keys[cut])
    return last_keys, tied_quotas


def _positions(first: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Return the position of each row in its run, from 0. `first` is true for the first row of each run, (rows)."""
    begins = np.flatnonzero(first)
    positions = np.arange(len(first), dtype=np.uint32)
    positions -= np.repeat(begins.astype(np.uint32), np.diff(begins, append=len(first)))
    return positions


def _cap(sizes: Ints, total: int) -> int:
    """Return the largest integer x with Σ min(x, size) ≤ total, by bisection; at most the largest size."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(sizes, middle).sum()) <= total:
            low = middle
        else:
            high = middle - 1
    return low


def _share_out(sizes: Ints, parent: Ints, quotas: Ints, priorities: Priorities) -> Ints:
    """Share each parent's quota among its children by `even_quotas`."""
    order = np.argsort(parent, kind="stable")
    shared = np.zeros(len(sizes), np.int64)
    for children in np.split(order, np.flatnonzero(np.diff(parent[order])) + 1) if len(order) else ():
        shared[children] = even_quotas(sizes[children], int(quotas[parent[children[0]]]), priorities[children])
    return shared
