"""The rows of a table that do not count: newer ones replaced them, or another file holds a copy of their part.

Few keys are repeated. Sorting finds them in less time and memory than a hash table of all keys: 8 bytes per row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from manifests.part_files import PartFiles

_COPY = -1
"""Age of the rows of a part that an earlier file holds, too."""


def replaced_rows(files: PartFiles, keys: pl.LazyFrame) -> npt.NDArray[np.uint32]:
    """Return the numbers of these rows, sorted.

    Args:
        files: The files of the table. Their rows are numbered in their order.
        keys: One column: the key of each row. Rows of a newer writer replace those with the same key.
    """
    starts, ages = _spans(files)
    if len(np.unique(ages)) < 2:  # a writer never repeats a key
        return np.array([], np.uint32)
    repeated = _repeated(starts, ages, keys)
    newest = np.full(len(repeated), _COPY, np.int32)
    for _, age, place in _rows_of(repeated, starts, ages, keys):
        np.maximum.at(newest, place, age)
    hidden = [row[age < newest[place]] for row, age, place in _rows_of(repeated, starts, ages, keys)]
    return np.union1d(np.concatenate([np.array([], np.uint32), *hidden]), _copies(starts, ages))


def _spans(files: PartFiles) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the first row of each span of rows, and after the last one; and the age of each span.

    The age is the number of the writer, oldest first. A span is a part, or copies of parts between two.
    """
    writers = {writer: number for number, writer in enumerate(dict.fromkeys(part.writer for part in files.parts))}
    starts, ages, stop = [], [], 0
    for start, length, part in sorted(zip(files.starts(), files.lengths(), files.parts, strict=True), key=_start):
        if start > stop:
            starts.append(stop)
            ages.append(_COPY)
        starts.append(start)
        ages.append(writers[part.writer])
        stop = start + length
    if (rows := files.rows()) > stop:
        starts.append(stop)
        ages.append(_COPY)
    return np.array([*starts, rows], np.int64), np.array(ages, np.int32)


def _start(span: tuple[int, int, object]) -> tuple[int, int]:
    return int(span[0]), int(span[1])


def _repeated(
    starts: npt.NDArray[np.int64], ages: npt.NDArray[np.int32], keys: pl.LazyFrame
) -> npt.NDArray[np.integer]:
    """Return the keys that may have rows of several writers, sorted, each once."""
    found: npt.NDArray[np.integer] | None = None
    count = 0
    for _, key, age in _chunks(starts, ages, keys):
        if found is None:
            found = np.empty(int(starts[-1]), key.dtype)
        first = np.ones(len(key), bool)
        first[1:] = (key[1:] != key[:-1]) | (age[1:] != age[:-1])  # the rows of a shard lie together
        distinct = key[first]
        found[count : count + len(distinct)] = distinct
        count += len(distinct)
    if found is None:
        return np.array([], np.int64)
    found = found[:count]
    found.sort()
    return np.unique(found[1:][found[1:] == found[:-1]])


def _rows_of(
    wanted: npt.NDArray[np.integer], starts: npt.NDArray[np.int64], ages: npt.NDArray[np.int32], keys: pl.LazyFrame
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], npt.NDArray[np.intp]]]:
    """Yield the number and age of rows with a wanted key, and the position of the key in `wanted`."""
    if not len(wanted):
        return
    for start, key, age in _chunks(starts, ages, keys):
        place = np.minimum(np.searchsorted(wanted, key), len(wanted) - 1)
        row = np.flatnonzero(wanted[place] == key)
        yield (row + start).astype(np.uint32), age[row], place[row]


def _chunks(
    starts: npt.NDArray[np.int64], ages: npt.NDArray[np.int32], keys: pl.LazyFrame
) -> Iterator[tuple[int, npt.NDArray[np.integer], npt.NDArray[np.int32]]]:
    """Yield the number of a first row, and the keys and ages of the rows from there."""
    start = 0
    for chunk in keys.collect_batches(maintain_order=True):
        key = chunk.to_series().to_numpy()
        span = np.searchsorted(starts, np.arange(start, start + len(key)), side="right") - 1
        yield start, key, ages[np.minimum(span, len(ages) - 1)]
        start += len(key)


def _copies(starts: npt.NDArray[np.int64], ages: npt.NDArray[np.int32]) -> npt.NDArray[np.uint32]:
    spans = [np.arange(starts[span], starts[span + 1], dtype=np.uint32) for span in np.flatnonzero(ages == _COPY)]
    return np.concatenate([np.array([], np.uint32), *spans])
