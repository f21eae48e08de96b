"""The rows of a table that do not count: newer ones replaced them, or another file holds a copy of their part.

Few keys are repeated. Sorting finds them in less time and memory than a hash table of all keys: 8 bytes per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyarrow import fs as pafs

from manifests.part_files import PartFiles

_COPY = -1
"""Age of the rows of a part that an earlier file holds, too."""

_ROWS = 1 << 20
"""Rows whose keys are held at a time, at least."""

Keys = npt.NDArray[np.integer]
Ages = npt.NDArray[np.int32]


def replaced_rows(files: PartFiles, keys: Callable[[Sequence[pafs.FileInfo]], Keys]) -> npt.NDArray[np.uint32]:
    """Return the numbers of these rows, sorted. The rows of all files are numbered in their order.

    Args:
        files: The files of the table.
        keys: Reads the key of each row of some files. Rows of a newer writer replace those with the same key.
    """
    starts, ages = _spans(files)
    if len(np.unique(ages)) < 2:  # a writer never repeats a key
        return np.array([], np.uint32)
    rows = _Rows(starts, ages, _chunks(files, keys))
    repeated = rows.repeated_keys()
    newest = np.full(len(repeated), _COPY, np.int32)
    for _, age, place in rows.with_keys(repeated):
        np.maximum.at(newest, place, age)
    hidden = [row[age < newest[place]] for row, age, place in rows.with_keys(repeated)]
    copies = [np.arange(starts[span], starts[span + 1], dtype=np.uint32) for span in np.flatnonzero(ages == _COPY)]
    return np.unique(np.concatenate([np.array([], np.uint32), *hidden, *copies]))


def _spans(files: PartFiles) -> tuple[npt.NDArray[np.int64], Ages]:
    """Return the first row of each span of rows, and after the last one; and the age of each span.

    The age is the number of the writer, oldest first. A span is a part, or copies of parts between two.
    """
    writers = {writer: number for number, writer in enumerate(dict.fromkeys(part.writer for part in files.parts))}
    numbers = [writers[part.writer] for part in files.parts]
    starts, ages, stop = [], [], 0
    for start, length, age in sorted(zip(files.starts().tolist(), files.lengths().tolist(), numbers, strict=True)):
        if start > stop:
            starts.append(stop)
            ages.append(_COPY)
        starts.append(start)
        ages.append(age)
        stop = start + length
    if (rows := sum(files.rows_of_files())) > stop:
        starts.append(stop)
        ages.append(_COPY)
    return np.array([*starts, rows], np.int64), np.array(ages, np.int32)


def _chunks(files: PartFiles, keys: Callable[[Sequence[pafs.FileInfo]], Keys]) -> Callable[[], Iterator[Keys]]:
    """Return a function that reads the keys chunk by chunk. Those of a small table are read once."""
    groups: list[list[pafs.FileInfo]] = []
    rows = _ROWS
    for file, length in zip(files.files, files.rows_of_files(), strict=True):
        if rows >= _ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(file)
        rows += length
    if len(groups) == 1:
        only = keys(groups[0])
        return lambda: iter([only])
    return lambda: map(keys, groups)


@dataclass(frozen=True)
class _Rows:
    """The rows of a table: the spans with their ages (see `_spans`), and what reads the keys of all rows."""

    starts: npt.NDArray[np.int64]
    ages: Ages
    keys: Callable[[], Iterator[Keys]]

    def _chunks(self) -> Iterator[tuple[int, Keys, Ages]]:
        """Yield the number of a first row, and the keys and ages of the rows from there."""
        start = 0
        for key in self.keys():
            span = np.searchsorted(self.starts, np.arange(start, start + len(key)), side="right") - 1
            yield start, key, self.ages[span]
            start += len(key)

    def repeated_keys(self) -> Keys:
        """Return the keys that may have rows of several writers, sorted, each once."""
        found: Keys = np.array([], np.int64)
        count = 0
        for _, key, age in self._chunks():
            if not count:
                found = np.empty(int(self.starts[-1]), key.dtype)
            first = np.ones(len(key), bool)
            first[1:] = (key[1:] != key[:-1]) | (age[1:] != age[:-1])  # the rows of a shard lie together
            distinct = key[first]
            found[count : count + len(distinct)] = distinct
            count += len(distinct)
        found = found[:count]
        found.sort()
        return np.unique(found[1:][found[1:] == found[:-1]])

    def with_keys(self, wanted: Keys) -> Iterator[tuple[npt.NDArray[np.uint32], Ages, npt.NDArray[np.intp]]]:
        """Yield the number and age of rows with a wanted key, and the position of the key in `wanted`."""
        for start, key, age in self._chunks() if len(wanted) else ():
            place = np.minimum(np.searchsorted(wanted, key), len(wanted) - 1)
            row = np.flatnonzero(wanted[place] == key)
            yield (row + start).astype(np.uint32), age[row], place[row]
