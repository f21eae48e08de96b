"""Pools of films: film files, tars with films and Parquet files with films, one or several of these in a folder."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import PurePosixPath
from typing import BinaryIO, ClassVar, cast

import pyarrow as pa

from core.errors import BadSampleError
from core.file_window import FileWindow
from core.films import FilmFile, FilmLostError
from core.parquet import BAD_PARQUET
from manifests.schemas import FILM_INDEX
from manifests.storage import Folder
from pipeline.pools.cells import cell_bytes
from pipeline.pools.entries import entries, split_pattern
from pipeline.pools.film_cells import film_column, film_columns
from pipeline.pools.globs import GlobPool
from pipeline.pools.listing import Listing, Shard
from pipeline.pools.look import Look
from pipeline.pools.medium import FILMS, is_film, measure_film
from pipeline.pools.parquet import Footers, wanted_cells
from pipeline.pools.parquet_rows import ImageColumns, damage, parquet_rows
from pipeline.pools.rows import Row
from pipeline.pools.side_files import full_stem
from pipeline.pools.tables import check_first_table, first_table
from pipeline.pools.tar_look import kinds_in
from pipeline.pools.tars import check_first_tar, rows_with_notes

_TAR, _TABLE = ".tar", ".parquet"
_FILM_WORK, _TAR_SHARE = 1 << 16, 128
"""Work to index a film, in bytes that would take as long to read, and of a tar the part of its bytes that is the same:
films have some megabytes."""
_REQUEST = 1 << 20  # bytes per request to an object store
_SYNC = b"G"  # the first byte of an MPEG transport stream; most other files that end in .ts are TypeScript


class Videos(GlobPool):
    """Films. `where` is a folder, a glob or a file: films by their ending, tars with films, Parquet files with films.

    A film in a tar is read in place, as a window of the tar. A film in a Parquet file is a cell.

    Attributes:
        video: Name of the column with the films, needed where the schema of a Parquet file does not make it clear.
        alt_text: Where the alt text is, if not under a usual name (`rows.NOTES`): a column of a Parquet file, or in a
            tar a key of the `.json` members or the ending of a side file.
    """

    noun: ClassVar = "film"
    has_images: ClassVar = False
    has_films: ClassVar = True
    index_schema: ClassVar = FILM_INDEX
    ending: ClassVar = (_TAR, _TABLE)

    video: str | None = None
    alt_text: str | None = None

    @cached_property
    def footers(self) -> Footers:
        return Footers()

    def recognises(self, look: Look) -> str:
        films = [name for name in look.names if is_film(name) and _is_stream_if_ts(look, name)]
        tars = look.ending(_TAR)
        stems = {full_stem(name) for name in tars}
        tables = [name for name in look.ending(_TABLE) if full_stem(name) not in stems]
        if FILMS.noun not in kinds_in(look, tars):
            tars = []
        first = first_table(look, tables)
        if first is None or not (film_columns(first[1]) or self.video in first[1].names):
            tables = []
        seen = [(films, "films"), (tars, "tars with films"), (tables, "Parquet files with films")]
        return " and ".join(f"{what} ({look.summary(names)})" for names, what in seen if names)

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterator[Shard]:
        """See `Pool.shards`. A Parquet file beside a tar of its name is the tar's metadata, as of video2dataset."""
        if split_pattern(self.where)[1]:  # a glob, or one file
            yield from super().shards(root, passed_over)
            return
        files = list(entries(root, self.follow_links))
        tars = {full_stem(entry.path) for entry in files if entry.path.endswith(_TAR)}
        for path, size, problem in files:
            if any(part.startswith(".") for part in PurePosixPath(path).parts):
                passed_over["hidden"] += 1
            elif path.endswith(_TABLE) and full_stem(path) in tars:
                passed_over[f"{_TABLE} beside a tar"] += 1
            elif is_film(path) or path.endswith(self.ending) or problem:
                yield Shard(path, 0 if problem else size, problem)
            else:
                passed_over[PurePosixPath(path).suffix.lower()] += 1

    def work(self, shards: pa.Table) -> list[int]:
        """See `Pool.work`. Of a film its header is read, of a Parquet file everything."""
        sizes = zip(shards["path"].to_pylist(), shards["bytes"].to_pylist(), strict=True)
        return [
            size if path.endswith(_TABLE) else max(_FILM_WORK, size // _TAR_SHARE if path.endswith(_TAR) else 0)
            for path, size in sizes
        ]

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        if shard.path.endswith(_TAR):
            with self._opened(root, shard.path) as file:
                buffered = file if root.local else cast(BinaryIO, io.BufferedReader(file, _REQUEST))  # type: ignore[type-var]
                yield from rows_with_notes(buffered, self.alt_text, passed_over, FILMS)
        elif shard.path.endswith(_TABLE):
            with self._opened(root, shard.path) as file:
                yield from parquet_rows(file, self.video, None, self.alt_text, self.max_cell, FILMS)
        else:
            film = self.film(root, shard.path, shard.path, 0, None)
            yield {"key": shard.path, "offset": 0, **measure_film(film), "bytes": shard.bytes}

    def film(self, root: Folder, shard: str, key: str, offset: int, length: int | None) -> FilmFile:
        if shard.endswith(_TAR):
            return FilmFile(
                f"{shard}/{key}", open=partial(self._member, root, shard, offset, length or 0), length=length
            )
        if shard.endswith(_TABLE):
            name = f"{shard}/{key}" if key == str(offset) else f"{shard}/{key}, row {offset}"  # paths may repeat
            return FilmFile(name, open=partial(self._cell, root, shard, offset), length=length)
        place = f"{root.path}/{shard}" if root.local else None
        return FilmFile(shard, open=partial(self._opened, root, shard), length=length, place=place)

    def check_first(self, listing: Listing) -> Listing:
        """See `Pool.check_first`: the first Parquet file and the first tar are checked."""

        def sources(path: str, schema: pa.Schema) -> tuple[Mapping[str, Sequence[str]], str]:
            columns = ImageColumns.of(schema, self.video, None, self.alt_text, FILMS)
            return columns.notes, f"film from the column {columns.image!r}"

        checked = listing
        for ending, check in (
            (_TAR, partial(check_first_tar, kind=self.kind, alt_text=self.alt_text)),
            (_TABLE, partial(check_first_table, kind=self.kind, sources=sources)),
        ):
            here = [path.endswith(ending) for path in listing.shards["path"].to_pylist()]
            if any(here):
                checked = check(replace(checked, shards=listing.shards.filter(pa.array(here))))
        return replace(checked, shards=listing.shards)

    def _shard_row(self, shard: Shard, error: str) -> Row:
        return {"key": "" if shard.path.endswith(self.ending) else shard.path, "error": error}

    @cached_property
    def _is_one_file(self) -> bool:
        """Whether `where` names one file: then it may be a link out of its folder."""
        _, rest, wild = split_pattern(self.where)
        return bool(rest) and not wild

    def _opened(self, root: Folder, shard: str) -> BinaryIO:
        """Open a file of the pool. It may have become a link since it was listed."""
        if not root.local:
            return cast(BinaryIO, root.filesystem.open_input_file(f"{root.path}/{shard}"))
        if self.follow_links or self._is_one_file:
            return open(f"{root.path}/{shard}", "rb")
        return root.open_inside(shard)

    def _member(self, root: Folder, shard: str, offset: int, length: int) -> BinaryIO:
        return cast(BinaryIO, FileWindow(self._opened(root, shard), offset, length))

    def _cell(self, root: Folder, shard: str, row: int) -> BinaryIO:
        """Read the film in a row of a Parquet file."""
        try:
            with self._opened(root, shard) as file:
                parquet = self.footers.open(root, shard, file, self.max_cell)
                ends = list(accumulate(parquet.row_groups))
                group = bisect_right(ends, row)
                if group == len(ends):
                    raise FilmLostError(f"row {row:,} is not there any more; index the pool again")
                start = ends[group] - parquet.row_groups[group]
                ((_, cell),) = wanted_cells(parquet, film_column(parquet.schema, self.video), group, {row - start})
                data = cell_bytes(cell, self.max_cell)
        except BadSampleError:
            raise
        except BAD_PARQUET as error:
            lost = isinstance(error, OSError | pa.ArrowInvalid)  # it was readable once, and may be again
            raise (FilmLostError if lost else BadSampleError)(f"broken Parquet: {damage(error)}") from error
        if data is None:
            raise BadSampleError("null film: the cell holds no bytes")
        return io.BytesIO(data)


def _is_stream_if_ts(look: Look, name: str) -> bool:
    if not name.lower().endswith(".ts"):
        return True
    try:
        with look.open(name) as file:
            return file.read(1) == _SYNC
    except (OSError, BadSampleError):
        return False
