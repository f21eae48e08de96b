"""Read a table part by part, for readers that keep a few bytes of each row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import numpy as np
import pyarrow as pa

from manifests.part_files import Part
from manifests.tables import Table

_REQUESTS = 16
"""Files of an object store that are read at the same time."""


def walk(table: Table, columns: Sequence[str]) -> tuple[list[str], Iterator[tuple[int, pa.Table]]]:
    """Read the current rows part by part, in stored order. Some files are held in memory.

    Returns:
        The names of the parts, and an iterator of the number of each part, an index into the names, with its rows.

    Raises:
        UserError: As in `Table.scan`.
    """
    files, hidden = table.current_files()
    starts = files.starts()

    def rows() -> Iterator[tuple[int, pa.Table]]:
        numbered = {part.name: number for number, part in enumerate(files.parts)}
        in_order = sorted(files.parts, key=lambda part: (starts[numbered[part.name]], numbered[part.name]))
        for part, read in _read(table, in_order, columns):
            number = numbered[part.name]
            first, stop = np.searchsorted(hidden, [starts[number], starts[number] + read.num_rows])
            if first < stop:
                shown = np.ones(read.num_rows, bool)
                shown[hidden[first:stop] - starts[number]] = False
                read = read.filter(pa.array(shown))
            yield number, read

    return [part.name for part in files.parts], rows()


def _read(table: Table, parts: Sequence[Part], columns: Sequence[str]) -> Iterator[tuple[Part, pa.Table]]:
    """Yield parts with their rows, in order. Files are read ahead in threads."""
    files = [list(held) for _, held in groupby(parts, key=lambda part: part.file.path)]

    def read(held: Sequence[Part]) -> list[pa.Table]:
        try:
            rows = table.read_file(held[0].file.path, columns)
        except FileNotFoundError:  # compacted since: another file holds the parts
            return [table.read(part.name, columns) for part in held]
        return [rows.slice(part.start, part.rows) for part in held]

    ahead = 1 if table.folder.local else _REQUESTS
    started: deque[tuple[Sequence[Part], Future[list[pa.Table]]]] = deque()
    with ThreadPoolExecutor(ahead) as threads:
        for held in files:
            started.append((held, threads.submit(read, held)))
            if len(started) > ahead:
                yield from _finished(*started.popleft())
        while started:
            yield from _finished(*started.popleft())


def _finished(held: Sequence[Part], rows: Future[list[pa.Table]]) -> Iterator[tuple[Part, pa.Table]]:
    yield from zip(held, rows.result(), strict=True)
