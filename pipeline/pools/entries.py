"""List the files below a folder of a pool, and the reason why a file must not be opened."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from fsspec.utils import glob_translate
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.storage import LEADS_OUT, NO_FILE, Folder


class Entry(NamedTuple):
    """A file below a folder: its relative path, its size in bytes, and why it must not be opened (None: it may)."""

    path: str
    size: int
    problem: str | None


def entries(
    root: Folder, follow_links: bool | None, inside: Folder | None = None, recursive: bool = True
) -> Iterator[Entry]:
    """Yield every file below a folder of the pool, in no particular order. No pipe or device is opened.

    Args:
        root: The folder.
        follow_links: Whether links of a local folder may lead out of it.
        inside: The folder that links may not lead out of; default `root`.
        recursive: Whether files in subfolders are listed too.

    Raises:
        OSError: The folder itself cannot be read.
    """
    if not root.local:
        yield from (Entry(root.relative(file.path), file.size, None) for file in root.files(recursive))
        return
    limit = os.sep if follow_links else os.path.realpath((inside or root).path).rstrip(os.sep) + os.sep
    pending, seen = [root.path], set[str]()
    while pending:
        folder = pending.pop()
        seen.add(os.path.realpath(folder))
        try:
            listed = list(os.scandir(folder))
        except OSError as error:
            if folder == root.path:
                raise
            yield Entry(_label(os.path.relpath(folder, root.path))[0], 0, f"unreadable folder: {error.strerror}")
            continue
        for entry in listed:
            linked = follow_links and entry.is_dir() and os.path.realpath(entry.path) not in seen
            if entry.is_dir(follow_symlinks=False) or linked:
                pending += [entry.path] if recursive else []
            elif file := _entry(entry, root.path, limit):
                yield file


def _entry(entry: os.DirEntry[str], root: str, limit: str) -> Entry | None:
    """Return the entry of a file; None if the file was deleted after its folder was read."""
    path, problem = _label(os.path.relpath(entry.path, root))
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(entry.path)
        if not target.startswith(limit):
            problem = problem or LEADS_OUT
        elif not os.path.isfile(target):
            problem = problem or "link: does not lead to a file, not followed"
        status = os.stat(target) if os.path.isfile(target) else status
    elif not stat.S_ISREG(status.st_mode):
        problem = problem or NO_FILE
    return Entry(path, status.st_size, problem)


def _label(path: str) -> tuple[str, str | None]:
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace"), "odd name: not valid UTF-8, rename the file"
    return path, None


def split_pattern(pattern: str) -> tuple[Folder, str, bool]:
    """Split a pattern into the folder before the first wildcard (or the file), the rest, and whether that is a glob."""
    folder = Folder.at(pattern)
    kind = folder.filesystem.get_file_info(folder.path).type
    if kind == pafs.FileType.Directory:
        return folder, "", False
    wild = None if kind == pafs.FileType.File else re.search(r"[*?\[]", pattern)
    cut = pattern.rfind("/", 0, wild.start() if wild else len(pattern)) + 1
    return Folder.at(pattern[:cut] or "."), pattern[cut:], wild is not None


def matcher(glob: str, where: str) -> re.Pattern[str]:
    """Return a glob as a regular expression for whole paths.

    Raises:
        UserError: It is not a glob, such as `a**.tar`; the text names `where`.
    """
    try:
        return re.compile(glob_translate(glob))
    except (re.error, ValueError) as error:
        raise UserError(f"{where}: not a glob: {error}") from error
