"""The base class of pools. A kind of pool is a subclass, of this project or of any package (docs/extending.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from core.errors import BadSampleError, UserError
from core.films import FilmFile
from core.parquet import MAX_CELL
from core.settings import Settings
from manifests.schemas import INDEX
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.pools.images import SPAN, Failure, Group
from pipeline.pools.listing import Listing, Shard, format_counts, shard_table, shards_of
from pipeline.pools.look import Look
from pipeline.pools.rows import Row


class Pool(Settings):
    """A pool of images: its settings, which are the fields, and how its shards are listed, indexed and read.

    A kind of pool defines `shards`, `rows` and `read_images`. The other methods have defaults.

    Attributes:
        kind: Name of the kind, or the path of its class, `package.module:Class`.
        where: The path, glob or URL.
        max_image_bytes: Largest Parquet cell that is read as an image, in bytes; default 268,435,456.
        follow_links: Whether links of a local pool may lead out of it; default no.
    """

    noun: ClassVar[str] = "image"
    """What a row is, for messages."""
    has_images: ClassVar[bool] = True
    """Whether the pool has the images, not only their URLs."""
    has_films: ClassVar[bool] = False
    """Whether the rows are films or clips of films. Then the class defines `film`, and the pool has no images."""
    index_schema: ClassVar[pa.Schema] = INDEX
    """The columns of the index. Films and clips have more."""
    has_columns: ClassVar[bool] = False
    """Whether stages may read columns of the pool, `pool.X`. Then the class defines `columns`."""
    same_row: ClassVar[Sequence[str]] = ()
    """Columns of the index: in a changed shard, rows with the same values in them keep their ids. None: all are new."""
    shard_is_image: ClassVar[bool] = False
    """Whether each shard is one image. Then the row of a shard that cannot be read is about this image."""
    bytes_are_work: ClassVar[bool] = True
    """Whether a larger `Shard.bytes` takes longer to index. No: it is a mark that tells a changed shard."""
    changeable: ClassVar[frozenset[str]] = frozenset()
    """Settings that a run may change: they only say which rows the pool has."""
    encloses: ClassVar[bool] = False
    """Whether other kinds that recognise the same files only recognise parts of this one."""

    kind: str
    where: str
    max_image_bytes: int | None = Field(None, ge=1)
    follow_links: bool | None = None

    # What a kind defines

    def root(self) -> Folder:
        """Return the folder that shard paths are relative to, without listing it; default `where`."""
        return Folder.at(self.where)

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterable[Shard]:
        """Yield the shards, in any order. Count the files that are not shards in `passed_over`, by ending or kind.

        Raises:
            OSError: The pool cannot be read.
        """
        raise NotImplementedError

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterable[Row]:
        """Yield the index rows of a shard: one for each image, and one for everything that cannot be read.

        A row maps columns of `index_schema` to values; missing ones are null. `rows.measure` returns the
        columns that come from an image's header.

        - `key` is the name of the image in its shard, and `offset` its position there, for `read_images`.
        - `error` says why the image cannot be used.
        - `id` may be an id of the source. Default: a hash of the shard and of `identity` or, if there is none, `key`.

        Count the members that are neither images nor texts in `passed_over`, by ending.

        Raises:
            OSError: Disk or network failure: the next run reads the shard again.
            BadSampleError: The shard cannot be read: the text is the error of its only row.
        """
        raise NotImplementedError

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        """Return the encoded image, or a `Failure`, for each row of a group.

        Raises:
            OSError, BadSampleError: No image of the group can be read. After an OSError the next run tries again.
        """
        raise NotImplementedError

    def film(self, root: Folder, shard: str, key: str, offset: int, length: int | None) -> FilmFile:
        """Return the film of a row, or the film that a row's clip is of, without opening it.

        Args:
            root: The folder that shard paths are relative to.
            shard, key, offset, length: Values from the index.
        """
        raise NotImplementedError

    def recognises(self, look: Look) -> str:
        """Say what this pool takes the files at its path for, such as `a folder of images (3 .jpg)`.

        An empty text: they are not of this kind. Read little: a few files, and of each its first bytes. Errors of
        reading mean that a file is not recognised. Default: nothing is recognised, so users name the kind.
        """
        return ""

    def joins(self, group: Group, offset: int, length: int) -> bool:
        """Return whether the next image joins a group of the same shard and section, to be read in one call.

        Args:
            group: The images so far.
            offset, length: Of the next image, from the index.

        Default: up to 8 MiB.
        """
        return sum(group.lengths) + length <= SPAN

    def section_ends(self, root: Folder, shard: str) -> Sequence[int] | None:
        """Return the offset of each section's end (exclusive) in a shard; None if the shard cannot be read.

        A section is a unit of reading, such as a row group: no group crosses its end. Default: one section.
        """
        return ()

    def check_first(self, listing: Listing) -> Listing:
        """Check the settings against the first shard, before anything is written.

        Returns:
            The listing; with its `alt_text` and `image` set, if they are known.

        Raises:
            UserError: The shard lacks something that the settings name, or cannot be read safely.
        """
        return listing

    def columns(self, root: Folder, shard: str, names: Sequence[str], rows: npt.NDArray[np.int64]) -> pa.Table:
        """Read columns of the pool in one shard.

        Args:
            root: The folder that shard paths are relative to.
            shard: Path of the shard.
            names: The X of the columns `pool.X`.
            rows: The rows to read, as values of `offset`.

        Returns:
            A table with the columns in the order of `names` and the rows in the order of `rows`; nulls for a column
            that the shard lacks.

        Raises:
            OSError, BadSampleError: The shard cannot be read.
        """
        raise NotImplementedError

    def columns_and_urls(
        self, root: Folder, shard: str, names: Sequence[str], rows: npt.NDArray[np.int64]
    ) -> tuple[pa.Table, pa.Array | None]:
        """Return `columns`, and the `url` that the index would have of each row now; None: it is not compared."""
        return self.columns(root, shard, names, rows), None

    def column_names(self, root: Folder, shard: str) -> Sequence[str] | None:
        """Return the columns of a shard that `columns` reads; None if they are unknown without reading all of it."""
        return None

    def id_column(self) -> str | None:
        """Return the column with ids of the source, which a changed shard keeps; None: ids are hashes."""
        return None

    def misread(self, index: Table) -> list[str]:
        """Return the indexed shards that an earlier version of this class may have read wrongly, to read them again."""
        return []

    def work(self, shards: pa.Table) -> list[int]:
        """Return about how many bytes are read to index each of some shards (columns `SHARDS`)."""
        return shards["bytes"].to_pylist() if self.bytes_are_work else [0] * shards.num_rows

    # What the pipeline calls

    @property
    def max_cell(self) -> int:
        """Largest Parquet cell that is read as an image, in bytes."""
        return self.max_image_bytes or MAX_CELL

    def listing(self, leave_out: Folder | None = None) -> Listing:
        """List the shards. Files in `leave_out` (a run directory) are not part of the pool.

        Raises:
            UserError: The pool cannot be read, or has nothing to index.
        """
        passed_over = Counter[str]()
        try:
            root = self.root()
            shards = list(self.shards(root, passed_over))
        except NotADirectoryError as error:
            raise UserError(f"{self.kind}: {self.where}: not a folder") from error
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())  # errors of object stores have no errno
            raise UserError(f"{self.kind}: {error.filename or self.where}: {reason}") from error
        if leave_out and leave_out.path.startswith(root.path):
            shards = [s for s in shards if not f"{root.path}/{s.path}".startswith(f"{leave_out.path}/")]
        if not shards:
            counts = f" (passed over: {format_counts(passed_over)})" if passed_over else ""
            raise UserError(f"{self.kind}: {self.where} has nothing to index{counts}; check the path")
        return Listing(root, shard_table(shards), passed_over)

    def index(self, root: Folder, shards: pa.Table, passed_over: Counter[str] | None = None) -> pa.Table:
        """Return the index rows of whole shards, with the columns of `index_schema`; at least one row per shard.

        Args:
            root: The folder that shard paths are relative to.
            shards: The shards, with the columns `listing.SHARDS`.
            passed_over: `rows` adds its counts to it.
        """
        counts = Counter[str]() if passed_over is None else passed_over
        rows: list[Row] = []
        for shard in shards_of(shards):
            ids: set[int] = set()
            for number, row in enumerate(self._rows_or_error(root, shard, counts)):
                row["shard"] = shard.path
                row.setdefault("shard_bytes", shard.bytes)
                row.setdefault("retry", False)
                if "id" not in row:
                    _set_hashed_id(row, number, shard.identity, ids)
                rows.append(row)
        return index_table(rows, self.index_schema)

    def error_rows(self, shards: pa.Table, error: str, retry: bool) -> pa.Table:
        """Return an index row with the error for each shard: its only row, as none of its images is read."""
        rows = []
        for shard in shards_of(shards):
            row = self._shard_row(shard, error)
            row |= {"id": image_id(shard.identity, row["key"]), "shard": shard.path, "shard_bytes": shard.bytes}
            rows.append(row | {"retry": retry})
        return index_table(rows, self.index_schema)

    def unreadable_row(self, shard: Shard, error: OSError) -> Row:
        """Return the only row of a shard that the disk or the network did not deliver: the next run reads it again."""
        row = self._shard_row(shard, f"unreadable: {' '.join(str(error).split())[:300]}") | {"retry": True}
        if shard.revision:
            row["shard_bytes"] = 0  # a length that differs: the next run detects the change of the shard again
        return row

    def _rows_or_error(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        if shard.problem:
            yield {"key": shard.path, "error": shard.problem}
            return
        try:
            rows = list(self.rows(root, shard, passed_over))
        except BadSampleError as error:  # such as a shard that has become a link since the pool was listed
            rows = [{"key": shard.path, "error": str(error)}]
        except OSError as error:
            rows = [self.unreadable_row(shard, error)]
        yield from rows

    def _shard_row(self, shard: Shard, error: str) -> Row:
        return {"key": shard.path if self.shard_is_image else "", "error": error}


def image_id(shard: str, key: str) -> int:
    """Return the id of an image: 63 bits of BLAKE2b over the identity of its shard and its key."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _set_hashed_id(row: Row, number: int, shard: str, ids: set[int]) -> None:
    """Set the id of a row by hashes, unlike all `ids` of its shard so far; add it to them.

    A tar may have a name twice. Then both rows stay, and the later one gets an error.
    """
    row["id"] = image_id(shard, row.pop("identity", row["key"]))
    if row["id"] in ids:
        row["id"] = image_id(shard, f"{row['key']}\0{number}")
        if row["key"] or "width" in row:  # else the row is about the shard and has an error already
            row["error"] = f"duplicate name: an earlier image of this shard is called {row['key']!r} too"
    ids.add(row["id"])


def index_table(rows: Sequence[Row], schema: pa.Schema = INDEX) -> pa.Table:
    """Return rows as a table with the columns of `schema`."""
    return pa.table({f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in schema}, schema=schema)
