"""Compact tables: files with many parts replace files with few, so that reading takes less time and fewer requests.

A compacted file has the same rows and names the parts that it holds (`manifests.part_files`). Rows keep their job and
their provenance, so readers see no difference, and jobs may add parts at the same time. Nothing is deleted before all
who listed the table earlier have ended, as far as one can tell: a replaced file stays for an hour after the file that
replaces it was written. So a kill at any moment leaves a table with the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyarrow import fs as pafs

from manifests.part_files import PartFiles, write_compacted
from manifests.parts import footer_of, read_part
from manifests.tables import Table

MOST_ROWS, MOST_BYTES = 65_536, 128 << 20
"""Limits of a compacted file, which a process holds in memory. A file with more than half of either stays as it is."""

LIFETIME_S = 3600.0
"""Seconds that a replaced file stays for readers who have listed it."""

_REQUESTS = 16
"""Number of files that are read or deleted at the same time."""


@dataclass(frozen=True)
class Compaction:
    """What `compact` did to a table.

    Attributes:
        parts: Number of parts.
        files_before, files_after: Number of files that hold them.
        bytes_before, bytes_after: Length of these files.
        deleted: Replaced files that were deleted.
        waiting: Replaced files that are deleted later.
    """

    parts: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    deleted: int
    waiting: int


def compact(table: Table) -> Compaction:
    """Write the parts of small files into larger ones, and delete files that were replaced an hour ago.

    Raises:
        UserError: A file is damaged.
    """
    before = table.list_files()
    parts = len(before.parts)
    for group in _groups(before):
        _merge(before, group)
    deleted = sweep(table)
    after = table.list_files()
    return Compaction(
        parts=parts,
        files_before=len(before.files),
        files_after=len(after.files),
        bytes_before=sum(file.size for file in before.files),
        bytes_after=sum(file.size for file in after.files),
        deleted=deleted,
        waiting=len(after.listed) - len(after.files),
    )


def sweep(table: Table) -> int:
    """Delete what is left over for an hour: replaced files, and temporary files of killed writers.

    Returns:
        The number of replaced files that were deleted.

    Raises:
        UserError: A file that replaces others is damaged.
    """
    table.folder.sweep_aside()
    files = table.list_files()
    used = {file.path for file in files.files}
    holders: dict[str, pafs.FileInfo] = {}  # of each part: an old file that readers prefer to the next ones
    needed: dict[str, pafs.FileInfo] = {}
    replaced = []
    for content in files.contents:
        file = content[0].file
        if file.path not in used and all(part.name in holders for part in content):
            replaced.append(file.base_name)
            needed |= {holders[part.name].path: holders[part.name] for part in content}
        if _is_old(file):
            holders = {part.name: file for part in content} | holders
    for holder in needed.values():
        read_part(table.folder, holder.base_name, table.remedy)  # raises if it is damaged
    with ThreadPoolExecutor(_REQUESTS) as threads:
        list(threads.map(table.folder.delete, replaced))
    return len(replaced)


def _is_old(file: pafs.FileInfo) -> bool:
    """Return whether the file is older than an hour. It is not if the file system does not say."""
    return file.mtime_ns is not None and time.time() - file.mtime_ns / 1e9 > LIFETIME_S


def _groups(files: PartFiles) -> Iterator[Sequence[pafs.FileInfo]]:
    """Yield groups of small files with the same columns, oldest first. Each group fits into one file."""
    groups: dict[bytes, list[pafs.FileInfo]] = {}
    held: dict[bytes, tuple[int, int]] = {}
    for file in files.files:
        footer = footer_of(files.folder, file, files.remedy)
        if 2 * footer.rows > MOST_ROWS or 2 * file.size > MOST_BYTES:
            continue
        columns = footer.schema.remove_metadata().serialize().to_pybytes()
        rows, length = held.get(columns, (0, 0))
        if rows + footer.rows > MOST_ROWS or length + file.size > MOST_BYTES:
            yield groups.pop(columns)
            rows = length = 0
        groups.setdefault(columns, []).append(file)
        held[columns] = rows + footer.rows, length + file.size
    yield from groups.values()


def _merge(files: PartFiles, group: Sequence[pafs.FileInfo]) -> None:
    """Write the parts of a group of files into one file."""
    if len(group) < 2:
        return
    with ThreadPoolExecutor(_REQUESTS) as threads:
        read = threads.map(lambda file: read_part(files.folder, file.base_name, files.remedy), group)
        tables = {file.path: rows for file, rows in zip(group, read, strict=True)}
    parts = [part for part in files.parts if part.file.path in tables]
    rows = [tables[part.file.path].slice(part.start, part.rows) for part in parts]
    write_compacted(files.folder, [part.name for part in parts], rows, [files.provenance(part) for part in parts])
