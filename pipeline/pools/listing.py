"""Shards of a pool, and the listing of what a pool has at the moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa

from core.image_header import IMAGE_ENDINGS
from manifests.storage import Folder
from pipeline.pools.entries import Entry

SHARDS = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("problem", pa.string()), ("revision", pa.string())])
"""The fields of `Shard` as columns: the form in which they are listed, compared with the index and sent to workers."""


@dataclass(frozen=True)
class Shard:
    """One file of the pool (one folder, for img2dataset's files format).

    Attributes:
        path: Path relative to the pool's root.
        bytes: Size of the file.
        problem: Why it must not be opened (a link out of the pool, a pipe): the error of its row.
        revision: Empty, or a mark that tells a changed shard from the indexed one; part of its images' ids.
    """

    path: str
    bytes: int
    problem: str | None = None
    revision: str = ""

    @property
    def identity(self) -> str:
        """The string that the ids of its images are hashed from."""
        return f"{self.path}\0{self.revision}" if self.revision else self.path


def shard_table(shards: Iterable[Shard]) -> pa.Table:
    """Return shards as a table with the columns `SHARDS`, sorted by path."""
    ordered = sorted(shards, key=lambda shard: shard.path)
    return pa.table([[getattr(shard, name) for shard in ordered] for name in SHARDS.names], schema=SHARDS)


def shards_of(table: pa.Table) -> Iterator[Shard]:
    """Yield the shards of a table with the columns `SHARDS`."""
    for values in zip(*(table[name].to_pylist() for name in SHARDS.names), strict=True):
        yield Shard(*values)


@dataclass(frozen=True)
class Listing:
    """The current contents of a pool.

    Attributes:
        root: The folder that shard paths are relative to.
        shards: The shards, sorted by path: the columns `SHARDS`.
        passed_over: Number of files that are not shards, by ending or by kind.
        alt_text: Where the alt text is read from, as a line for the log; empty if it was not determined.
        image: The same for the image, where it is a column of a parquet pool.
    """

    root: Folder
    shards: pa.Table
    passed_over: Counter[str] = field(default_factory=Counter)
    alt_text: str = ""
    image: str = ""


def format_counts(counts: Counter[str], most: int | None = None) -> str:
    """Format counts as `.txt 10, .json 2`. Names after the `most` largest are summed up as `others`."""
    others = sum(n for _, n in counts.most_common()[most:]) if most else 0
    return ", ".join(f"{name} {n:,}" for name, n in counts.most_common(most)) + (
        f", others {others:,}" if others else ""
    )


def is_candidate(name: str) -> bool:
    """Return whether a file or tar member of this name may be an image."""
    ending = PurePosixPath(name).suffix.lower()
    return ending in IMAGE_ENDINGS or not ending


def count_problems(others: Sequence[Entry], also: Callable[[str], str | None] = lambda _: None) -> Counter[str]:
    """Count the files that have a problem, such as links to folders, by problem, with the name of the first file.

    `also` may return a problem for a path that has none of its own.
    """
    odd = [(what.partition(",")[0], entry.path) for entry in others if (what := entry.problem or also(entry.path))]
    counts = Counter(what for what, _ in odd)
    first = {what: path for what, path in reversed(odd)}
    return Counter({f"{what} ({first[what]})": count for what, count in counts.items()})
