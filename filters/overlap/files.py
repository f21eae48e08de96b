"""Read a benchmark on this machine, a folder or a file, and hash its content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from core.errors import BadSampleError, UserError
from core.image_header import IMAGE_ENDINGS
from core.parquet import MAX_CELL
from core.text import printable
from filters.overlap.items import Item, is_read, item_of
from filters.overlap.rows import ROW_FILES, rows_of
from manifests.storage import Folder, LinkError

log = logging.getLogger("vl3syn.overlap")

_IN_FOLDERS = tuple(ending for ending in ROW_FILES if ending != ".txt")  # a README.txt has no questions
_PACKED = tuple(".zip .tar .tgz .gz .bz2 .xz .zst .7z .rar .arrow .lmdb .mdb .pkl .npz .xlsx".split())

_Placed = tuple[str, Item, list[bytes]]  # file and position, the item, its images


@dataclass
class Problems:
    """What of a benchmark could not be used: a count for each reason, and the first example of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, example: str) -> None:
        self.counts[what] += 1
        self.examples.setdefault(what, printable(" ".join(example.split())[:300]))

    def lines(self) -> list[str]:
        """Return a line for each reason: how often, and the first example."""
        return [f"{count:,} {what}, the first: {self.examples[what]}" for what, count in self.counts.items()]


def content_hash(path: str) -> str:
    """Return the hash that `Benchmark(path).content` has, without decoding an image. What cannot be read is warned of.

    Raises:
        UserError: The benchmark cannot be read.
    """
    return _content_hash(path, _signature(path))


@lru_cache(maxsize=16)
def _content_hash(path: str, signature: str) -> str:
    digest, problems = hashlib.sha256(), Problems()
    for item, encoded in read_items(path, problems):
        add_to_digest(digest, item, encoded)
    for line in problems.lines():
        log.warning("%s: %s", path, line)
    return digest.hexdigest()[:32]


def _signature(path: str) -> str:
    """Return names, lengths and times of the files, which are compared before they are hashed again."""
    files = [path] if not os.path.isdir(path) else [os.path.join(path, name) for name in _names(path)]
    try:
        return repr([(file, (status := os.lstat(file)).st_size, status.st_mtime_ns) for file in files])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}: give a folder or a file on this machine") from error


def add_to_digest(digest: hashlib._Hash, item: Item, encoded: Sequence[bytes]) -> None:
    for part in (item.id.encode(), json.dumps(item.variants).encode(), *encoded):
        digest.update(b"%d " % len(part) + part)


def read_items(path: str, problems: Problems) -> Iterator[tuple[Item, list[bytes]]]:
    """Yield the items of a benchmark with their images as bytes. A second item of one id has its place in the id."""
    if os.path.isdir(path):
        placed = _read_folder(path, problems)
    elif not os.path.isfile(path):
        raise UserError(f"{path}: no such folder or file, or a pipe or device: give a benchmark on this machine")
    else:
        placed = _read_file(path, Folder.at(os.path.dirname(os.path.abspath(path))), problems, set())
    ids = set[str]()
    for where, item, encoded in placed:
        distinct = replace(item, id=f"{item.id} ({printable(where)})") if item.id in ids else item
        ids.add(distinct.id)
        yield distinct, encoded


def _read_folder(path: str, problems: Problems) -> Iterator[_Placed]:
    folder, names, named = Folder.at(path), _names(path), set[str]()
    for name in names:
        if name.lower().endswith(_IN_FOLDERS):
            yield from _read_file(os.path.join(path, name), folder, problems, named)
        elif name.lower().endswith(_PACKED):
            problems.add("packed files, which are not read: unpack them", name)
    for name in names:
        if not name.lower().endswith(tuple(IMAGE_ENDINGS)) or name in named:
            continue
        if (data := _image(folder, name, name, problems)) is not None:
            yield name, Item(printable(name)), [data]


def _names(path: str) -> list[str]:
    """Return the files below a folder, sorted; hidden ones and links to folders are passed over."""
    names = []
    for above, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.relpath(os.path.join(above, name), path) for name in files if not name.startswith(".")]
    return sorted(names)


def _read_file(path: str, folder: Folder, problems: Problems, named: set[str]) -> Iterator[_Placed]:
    """Yield the items of a file. Names of images that it refers to are added to `named`."""
    name = os.path.relpath(path, folder.path)
    at = Folder.at(os.path.dirname(os.path.join(folder.path, name)))
    for number, row in rows_of(path, is_read):
        where = f"{name}:{number}"
        try:
            if isinstance(row, BadSampleError):
                raise row
            item = item_of(row, where)
        except BadSampleError as error:
            problems.add("rows that cannot be read", f"{where}: {error}")
            continue
        if item is None:
            problems.add("rows without an image, question or answer", f"{where}: its keys are {', '.join(row)[:200]}")
            continue
        images = [one if isinstance(one, bytes) else _image(at, one, where, problems) for one in item.images]
        named |= {os.path.relpath(os.path.join(at.path, n), folder.path) for n in item.images if isinstance(n, str)}
        yield where, item, [data for data in images if data is not None]


def _image(folder: Folder, name: str, where: str, problems: Problems) -> bytes | None:
    """Return the bytes of an image below a folder; None if it cannot be read."""
    try:
        if len(name) > 4096 or "\0" in name:
            raise BadSampleError("no path")
        with folder.open_inside(name) as file:
            if os.fstat(file.fileno()).st_size > MAX_CELL:
                raise BadSampleError(f"more than {MAX_CELL:,} bytes")
            return file.read()
    except (OSError, LinkError, BadSampleError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.add("images that cannot be read", f"{where}: {name[:200]}: {reason}")
        return None
