"""The settings of a pool, and the list of its shards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Self

from fsspec.utils import glob_translate
from pyarrow import fs as pafs
from pydantic import Field, model_validator

from core.errors import UserError
from core.parquet import MAX_CELL
from core.settings import Settings
from manifests.storage import Folder
from pipeline.pools.entries import Entry, entries
from pipeline.pools.packed import packed_name

KINDS = ("images", "tars", "parquet", "img2dataset", "urls")

IMAGE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif .ico "
    ".jp2 .j2k .j2c .jpc .jpf .jpx .ppm .pgm .pbm .pnm .pfm".split()
)
"""Files with one of these endings, or with none, may be images. Their bytes decide the format."""


_TABLES = (".parquet", ".parquet.gz", ".pq", ".parq", ".arrow", ".feather")
_LIKE_SHARDS = {
    "tars": (".tar", ".zip"),
    "parquet": _TABLES,
    "urls": (*_TABLES, ".txt", ".csv", ".tsv", ".json", ".jsonl", ".txt.gz", ".csv.gz", ".jsonl.gz"),
}
"""Endings of files that may be meant as shards but are not listed, by the pool's kind; counted as passed over."""


class Pool(Settings):
    """Settings of a pool: exactly one of the five kinds, and how to read it.

    Attributes:
        images: A folder of image files, searched recursively.
        tars: A glob of webdataset tars with images and, optionally, `.txt` (alt text) and `.json` members.
        parquet: A glob of Parquet files with an image column, such as binary or struct{bytes, path}.
        urls: A glob of Parquet files with image URLs and metadata, such as COYO-700M; they contain no images.
        img2dataset: An output folder of img2dataset (webdataset, parquet or files format).
        image: Name of the Parquet image column, needed where the schema does not make it clear.
        id: Name of the integer column of a parquet or urls pool that identifies the image in the whole pool.
        alt_text: Where the alt text is, if not under a usual name (`rows.NOTES`): a column of Parquet files, or in tars
            a key of the `.json` members or the ending of a side file.
        max_image_bytes: Largest Parquet cell that is read as an image, in bytes; default 268,435,456.
        follow_links: Whether links of a local pool may lead out of it; default no.
    """

    images: str | None = None
    tars: str | None = None
    parquet: str | None = None
    urls: str | None = None
    img2dataset: str | None = None
    image: str | None = None
    id: str | None = None
    alt_text: str | None = None
    max_image_bytes: int | None = Field(None, ge=1)
    follow_links: bool | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise UserError(f"a pool is exactly one of {', '.join(KINDS)}")
        if (self.image and not self.parquet) or (self.id and not (self.parquet or self.urls)):
            raise UserError("image and id name columns of a parquet pool, id of a urls pool too")
        if self.alt_text is not None and self.images:
            raise UserError("alt_text: a folder of images has no alt text; it is read from tars and Parquet files")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def max_cell(self) -> int:
        """Largest Parquet cell that is read as an image, in bytes."""
        return self.max_image_bytes or MAX_CELL

    @property
    def where(self) -> str:
        """The path, glob or URL."""
        return str(getattr(self, self.kind))


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


@dataclass(frozen=True)
class Listing:
    """The current contents of a pool.

    Attributes:
        root: The folder that shard paths are relative to.
        shards: The shards, sorted by path.
        passed_over: Number of files that are not shards, by ending or by kind.
        alt_text: Where the alt text is read from, as a line for the log; empty if it was not determined.
        image: The same for the image, where it is a column of a parquet pool.
    """

    root: Folder
    shards: tuple[Shard, ...]
    passed_over: Counter[str] = field(default_factory=Counter)
    alt_text: str = ""
    image: str = ""


def list_pool(pool: Pool, leave_out: Folder | None = None) -> Listing:
    """List the shards of a pool. Files in `leave_out` (a run directory) are not part of it.

    Raises:
        UserError: The pool cannot be read, or has nothing to index.
    """
    try:
        if pool.kind in ("tars", "parquet", "urls"):
            listing = _list_glob(pool, ".tar" if pool.kind == "tars" else ".parquet")
        else:
            listing = _list_img2dataset(pool) if pool.kind == "img2dataset" else _list_images(pool)
    except NotADirectoryError as error:
        raise UserError(f"{pool.kind}: {pool.where}: not a folder") from error
    except OSError as error:
        said = error.strerror or " ".join(str(error).split())  # errors of object stores have no errno
        raise UserError(f"{pool.kind}: {error.filename or pool.where}: {said}") from error
    if leave_out and leave_out.path.startswith(listing.root.path):
        shards = (s for s in listing.shards if not f"{listing.root.path}/{s.path}".startswith(f"{leave_out.path}/"))
        listing = replace(listing, shards=tuple(shards))
    if not listing.shards:
        also = f" (passed over: {format_counts(listing.passed_over)})" if listing.passed_over else ""
        raise UserError(f"{pool.kind}: {pool.where} has nothing to index{also}; check the path")
    return listing


def root_of(pool: Pool) -> Folder:
    """Return the folder that the pool's shard paths are relative to, without listing it."""
    return Folder.at(pool.where) if pool.kind in ("images", "img2dataset") else _split(pool.where)[0]


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


def _list_images(pool: Pool) -> Listing:
    root, passed_over = Folder.at(pool.where), Counter[str]()
    shards = []
    for path, size, problem in entries(root, pool.follow_links):
        if any(part.startswith(".") for part in PurePosixPath(path).parts):
            passed_over["hidden"] += 1
        elif is_candidate(path) or problem:
            shards.append(Shard(path, 0 if problem else size, problem))
        else:
            passed_over[PurePosixPath(path).suffix.lower()] += 1
    return Listing(root, tuple(sorted(shards, key=lambda s: s.path)), passed_over)


def _list_glob(pool: Pool, ending: str) -> Listing:
    """List a glob (`*`, `?`, `**`), a folder (all files with that ending, recursively), or one file."""
    root, rest, wild = _split(pool.where)
    try:
        matches = re.compile(glob_translate(rest) if wild else re.escape(rest)) if rest else None
    except re.error as error:
        raise UserError(f"{pool.where}: not a glob: {error}") from error
    if rest and not wild:  # a file that the user names may be a link out of its folder
        size = root.filesystem.get_file_info(f"{root.path}/{rest}").size
        return Listing(root, (Shard(rest, size),) if size is not None else ())
    shards, others = [], []
    for entry in entries(root, pool.follow_links, recursive=not rest or "/" in rest):
        if matches.fullmatch(entry.path) if matches else entry.path.endswith(ending):
            shards.append(Shard(*entry))
        else:
            others.append(entry)
    listed = tuple(sorted(shards, key=lambda s: s.path))
    return Listing(root, listed, _passed_over(others, partial(_like_shard, pool.kind)))


def _like_shard(kind: str, path: str) -> str | None:
    """Return what a file is that a folder or glob of this kind does not list but its user may expect, else None."""
    if kind == "tars" and (packed := packed_name(path)):
        return packed
    ending = next((ending for ending in _LIKE_SHARDS[kind] if path.lower().endswith(ending)), None)
    return ending and f"{ending} files"


def _passed_over(others: Sequence[Entry], also: Callable[[str], str | None] = lambda _: None) -> Counter[str]:
    """Count the files that have a problem, such as links to folders, by problem, with the name of the first file.

    `also` may return a problem for a path that has none of its own.
    """
    odd = [(what.partition(",")[0], entry.path) for entry in others if (what := entry.problem or also(entry.path))]
    counts = Counter(what for what, _ in odd)
    first = {what: path for what, path in reversed(odd)}
    return Counter({f"{what} ({first[what]})": count for what, count in counts.items()})


def _split(pattern: str) -> tuple[Folder, str, bool]:
    """Split a pattern into the folder before the first wildcard (or the file), the rest, and whether that is a glob."""
    folder = Folder.at(pattern)
    kind = folder.filesystem.get_file_info(folder.path).type
    if kind == pafs.FileType.Directory:
        return folder, "", False
    wild = None if kind == pafs.FileType.File else re.search(r"[*?\[]", pattern)
    cut = pattern.rfind("/", 0, wild.start() if wild else len(pattern)) + 1
    return Folder.at(pattern[:cut] or "."), pattern[cut:], wild is not None


def _list_img2dataset(pool: Pool) -> Listing:
    """List the finished shards only: img2dataset writes NNNNN_stats.json last."""
    root = Folder.at(pool.where)
    files = {entry.path: entry for entry in entries(root, pool.follow_links, recursive=False)}
    stems = sorted(name.removesuffix("_stats.json") for name in files if name.endswith("_stats.json"))
    shards = [_downloads(root, pool, stem, files) for stem in stems]
    passed_over = _passed_over([e for e in files.values() if e.path.rpartition(".")[0] not in stems])
    names = {n.split(".")[0] for n in files if n.endswith((".tar", ".parquet"))}
    passed_over["unfinished"] += len(names - set(stems))
    return Listing(root, tuple(shards), +passed_over)


def _downloads(root: Folder, pool: Pool, stem: str, files: Mapping[str, Entry]) -> Shard:
    """Return one shard of img2dataset: a tar or a folder with a Parquet sidecar, or a Parquet file with images."""
    tar, table = files.get(f"{stem}.tar"), files.get(f"{stem}.parquet")
    problem = next((entry.problem for entry in (tar, table, files.get(stem)) if entry and entry.problem), None)
    if tar:
        return Shard(tar.path, tar.size, problem)
    if _has_files(root.join(stem), pool, root) or (problem and stem in files):
        return Shard(stem, table.size if table else 0, problem)
    if table:
        return Shard(table.path, table.size, problem)
    return Shard(stem, 0, "missing: no tar, folder or Parquet file beside the stats")


def _has_files(folder: Folder, pool: Pool, root: Folder) -> bool:
    try:
        return any(True for _ in entries(folder, pool.follow_links, root, recursive=False))
    except (FileNotFoundError, NotADirectoryError):
        return False
