"""Priorities: hashes of ids and names, for random choices that everyone who repeats them makes alike.

A random choice takes the lowest priorities first. So it depends only on the set of rows and the seed, not on the order
of rows, on shards or on workers. If a pool grows, the choice changes only at the edge of each quota.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

Priorities = npt.NDArray[np.uint64]

CHUNK = 1 << 22
"""Rows to process at once, so that temporary arrays stay small."""

_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment, 2⁶⁴ / φ


def priority(ids: npt.NDArray[np.integer], seed: int = 0) -> Priorities:
    """Return a hash of each id.

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
    for start in range(0, len(states), CHUNK):
        z = states[start : start + CHUNK] + offset
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        hashes[start : start + CHUNK] = z
    return hashes


def name_priority(names: pl.Series, seed: int = 0) -> Priorities:
    """Return a hash of each group's name: `priority` for integers, BLAKE2b of the text for other types."""
    if names.dtype.is_integer():
        return priority(names.cast(pl.Int64).to_numpy(), seed)
    key = seed.to_bytes(8, "little")
    texts = names.cast(pl.String).to_list()
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)
