"""What was removed from a publication on request, and is never published again.

Each takedown is a file `removed-000001.json` beside the lists of a publication, or in the folder `removed` of a run. It
names images by their ids and by hashes: of their bytes, of their URLs, and of what was asked for. The file is written
before a shard is changed. So a takedown that was cut off is known, and whoever comes next finishes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from core.errors import UserError
from core.url_form import comparable_url
from manifests.storage import Folder

REMOVED = "removed"
"""Folder of a run's takedowns."""

_PREFIX = "removed-"
_SETS = ("ids", "sha256", "urls", "requests")


def text_hash(text: str) -> str:
    """Return the hash by which a URL (in its comparable form) or a request is stored, hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def url_hash(url: str | None) -> str | None:
    """Return the hash of a URL's comparable form; None for what is no URL."""
    form = comparable_url(url) if url else None
    return text_hash(form) if form else None


@dataclass(frozen=True)
class Removals:
    """Images that are never published.

    Attributes:
        ids: Their ids.
        sha256: Hashes of their bytes, hexadecimal: the same image under another id is removed, too.
        urls: Hashes of URLs (`url_hash`): what they give is removed, whatever its bytes.
        requests: Hashes of the requests that were met, so that a list can be given again.
    """

    ids: frozenset[int] = frozenset()
    sha256: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()

    def __or__(self, other: Removals) -> Removals:
        return Removals(*(getattr(self, name) | getattr(other, name) for name in _SETS))

    def __sub__(self, other: Removals) -> Removals:
        return Removals(*(getattr(self, name) - getattr(other, name) for name in _SETS))

    def __bool__(self) -> bool:
        """Return whether something is removed. Requests alone remove nothing."""
        return bool(self.ids or self.sha256 or self.urls)

    def fitting(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return those of `rows` (columns `id`, `sha256`, `url`) that are removed."""
        wanted = pl.col("id").is_in(sorted(self.ids)) | pl.col("sha256").str.to_lowercase().is_in(sorted(self.sha256))
        if self.urls:
            hashes = pl.col("url").map_elements(url_hash, pl.String)
            wanted = wanted | hashes.is_in(sorted(self.urls)).fill_null(False)
        return rows.filter(wanted.fill_null(False))


@dataclass(frozen=True)
class Takedown:
    """One takedown.

    Attributes:
        removals: What it removed.
        images: Number of published images that it removed.
        shards: The shards that it wrote anew, by their path in the publication.
        reasons: Number of images by reason, if the reasons may be published.
        date: The day, UTC.
        finished: Whether all of its shards are written.
        number: Its number, which its file has; counted from 1.
    """

    removals: Removals
    images: int = 0
    shards: tuple[str, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    date: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d}")
    finished: bool = False
    number: int = 0

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{_PREFIX}{self.number:06d}.json"

    @property
    def generation(self) -> int:
        """The generation of the shards that it wrote; those of a publication without takedowns are the first."""
        return self.number + 1

    def to_bytes(self) -> bytes:
        """Return its file."""
        removals = {name: sorted(getattr(self.removals, name)) for name in _SETS}
        about = {name: getattr(self, name) for name in ("date", "finished", "images", "shards", "reasons")}
        return json.dumps({**about, **removals}, indent=1, sort_keys=True, ensure_ascii=False).encode()


def takedowns_in(folder: Folder) -> list[Takedown]:
    """Return the takedowns whose files are in a folder, oldest first.

    Raises:
        UserError: A file is missing or damaged.
    """
    names = [file.base_name for file in folder.files()]
    found = [name for name in names if name.startswith(_PREFIX) and name.endswith(".json")]
    takedowns = [_parsed(folder, name, number) for number, name in enumerate(found, start=1)]
    for takedown, name in zip(takedowns, found, strict=True):
        if takedown.name != name:
            raise UserError(
                f"{folder.path}/{takedown.name}: this file is missing, and what was removed; copy it back "
                f"({name} is there; a copy of a file is to be moved away)"
            )
    return takedowns


def removals_in(folder: Folder) -> Removals:
    """Return what all takedowns in a folder have removed."""
    return united(takedown.removals for takedown in takedowns_in(folder))


def united(removals: Iterable[Removals]) -> Removals:
    """Return all of several removals."""
    union = Removals()
    for each in removals:
        union |= each
    return union


def add_takedown(folder: Folder, takedown: Takedown) -> Takedown:
    """Store a takedown behind those in a folder; return it with its number.

    Raises:
        UserError: Another command stored one at the same time.
    """
    numbered = replace(takedown, number=len(takedowns_in(folder)) + 1)
    if not folder.create_file(numbered.name, numbered.to_bytes()):
        raise UserError(f"{folder.path}/{numbered.name}: another command has removed images meanwhile; run it again")
    return numbered


def _parsed(folder: Folder, name: str, number: int) -> Takedown:
    try:
        values = json.loads(folder.read(name))
        removals = Removals(
            frozenset(_typed(values["ids"], int)), *(frozenset(_typed(values[key], str)) for key in _SETS[1:])
        )
        shards, reasons = tuple(_typed(values["shards"], str)), dict(values["reasons"])
        date, images, finished = str(values["date"]), int(values["images"]), bool(values["finished"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserError(f"{folder.path}/{name}: the file is damaged ({error}); copy it back") from error
    return Takedown(removals, images, shards, reasons, date, finished, number)


def _typed(values: Any, type_: type) -> Sequence[Any]:
    if not isinstance(values, list) or not all(isinstance(value, type_) for value in values):
        raise TypeError(f"no list of {type_.__name__}")
    return values
