"""Pools of img2dataset's output: webdataset, parquet and files format, with sidecars and failed downloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import pyarrow as pa

from core.arrow_types import check_names
from core.errors import BadSampleError
from core.parquet import BAD_PARQUET, BombError, Parquet
from manifests.storage import Folder
from pipeline.pools.base import Pool
from pipeline.pools.cells import image_columns, image_leaves
from pipeline.pools.entries import Entry, entries
from pipeline.pools.files import ImageFiles, file_row
from pipeline.pools.images import Failure, Group
from pipeline.pools.listing import Listing, Shard, count_problems, is_candidate
from pipeline.pools.look import Look
from pipeline.pools.parquet import ParquetImages
from pipeline.pools.parquet_rows import bounded_rows, damage, measured_cell, note_columns
from pipeline.pools.rows import Row, notes_of, on_disk
from pipeline.pools.side_files import full_stem, stem
from pipeline.pools.tables import check_first_table
from pipeline.pools.tars import Tars, tar_rows

_STATS = "_stats.json"


class Downloads(Pool):
    """An output folder of img2dataset (webdataset, parquet or files format).

    Attributes:
        alt_text: The column of the sidecars with the alt text, if it has none of the usual names (`rows.NOTES`).
    """

    encloses: ClassVar = True

    alt_text: str | None = None

    def recognises(self, look: Look) -> str:
        """See `Pool.recognises`: a finished shard has NNNNN_stats.json beside a tar, a folder or a Parquet file."""
        tops = {name.partition("/")[0] for name in look.names}
        stems = [name.removesuffix(_STATS) for name in tops if name.endswith(_STATS)]
        shards = [stem for stem in stems if tops & {stem, f"{stem}.tar", f"{stem}.parquet"}]
        return f"an output of img2dataset ({len(shards):,} finished shards)" if look.is_folder and shards else ""

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterator[Shard]:
        """Yield the finished shards only: img2dataset writes NNNNN_stats.json last."""
        files = {entry.path: entry for entry in entries(root, self.follow_links, recursive=False)}
        stems = {name.removesuffix(_STATS) for name in files if name.endswith(_STATS)}
        passed_over.update(count_problems([e for e in files.values() if e.path.rpartition(".")[0] not in stems]))
        unfinished = {n.split(".")[0] for n in files if n.endswith((".tar", ".parquet"))} - stems
        passed_over.update({"unfinished": len(unfinished)} if unfinished else {})
        yield from (self._shard(root, stem, files) for stem in stems)

    def _shard(self, root: Folder, stem: str, files: Mapping[str, Entry]) -> Shard:
        """Return one shard: a tar or a folder with a Parquet sidecar, or a Parquet file with images."""
        tar, table = files.get(f"{stem}.tar"), files.get(f"{stem}.parquet")
        problem = next((entry.problem for entry in (tar, table, files.get(stem)) if entry and entry.problem), None)
        if tar:
            return Shard(tar.path, tar.size, problem)
        if self._has_files(root, stem) or (problem and stem in files):
            return Shard(stem, table.size if table else 0, problem)
        if table:
            return Shard(table.path, table.size, problem)
        return Shard(stem, 0, "missing: no tar, folder or Parquet file beside the stats")

    def _has_files(self, root: Folder, name: str) -> bool:
        try:
            return any(True for _ in entries(root.join(name), self.follow_links, root, recursive=False))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        """Yield sidecar columns and image header, or the error message of a failed download."""
        sidecar_path = _sidecar_of(shard)
        try:
            sidecar = _sidecar(root, sidecar_path, self.alt_text)
        except FileNotFoundError:
            sidecar = {}
            yield {"key": "", "error": f"broken sidecar: there is no {sidecar_path}"}
        except BAD_PARQUET as error:
            sidecar = {}
            yield {"key": "", "error": f"broken sidecar: {sidecar_path}, {damage(error)}"}
        for row in self._downloaded(root, shard):
            base = row["key"].rpartition("/")[2]
            name = full_stem(base) if full_stem(base) in sidecar else stem(base)
            yield {**sidecar.pop(name, {}), **row}
        for key, notes_ in sidecar.items():
            yield {"error": "missing: downloaded according to the sidecar, but not in the shard", **notes_, "key": key}

    def _downloaded(self, root: Folder, shard: Shard) -> Iterator[Row]:
        """Yield the images of a shard in the webdataset, parquet or files format."""
        if shard.path.endswith(".tar"):
            with on_disk(root, shard.path) as file:
                # An empty tar is no error: all of its downloads failed.
                yield from (r for r in tar_rows(file) if not str(r["error"]).startswith("no images"))
        elif shard.path.endswith(".parquet"):
            yield from _downloaded_cells(root, shard.path, self.max_cell)
        else:
            folder = root.join(shard.path)
            for entry in sorted(entries(folder, self.follow_links, root, recursive=False)):
                if is_candidate(entry.path) and entry.problem:
                    yield {"key": entry.path, "error": entry.problem}
                elif is_candidate(entry.path):
                    yield file_row(folder, Shard(entry.path, entry.size), self.follow_links)

    @cached_property
    def formats(self) -> Mapping[str, Pool]:
        """The pools that read the images of a shard, by its ending."""
        how = {"where": self.where, "max_image_bytes": self.max_image_bytes, "follow_links": self.follow_links}
        pools = {"tar": Tars, "parquet": _Tables, "": _Folders}
        return {ending: kind(kind=self.kind, **how) for ending, kind in pools.items()}

    def joins(self, group: Group, offset: int, length: int) -> bool:
        return self._format(group.shard).joins(group, offset, length)

    def section_ends(self, root: Folder, shard: str) -> Sequence[int] | None:
        return self._format(shard).section_ends(root, shard)

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        return self._format(group.shard).read_images(root, group)

    def _format(self, shard: str) -> Pool:
        return self.formats.get(shard.rpartition(".")[2], self.formats[""])

    def check_first(self, listing: Listing) -> Listing:
        return check_first_table(
            listing, self.kind, lambda _, schema: (note_columns(schema, self.alt_text), ""), table_of=_sidecar_of
        )


class _Folders(ImageFiles):
    """The folders of the files format."""

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        return [self.read_file(root, f"{group.shard}/{group.keys[0]}")]


class _Tables(ParquetImages):
    """The files of the parquet format."""

    def image_column(self, schema: pa.Schema) -> str:
        return downloaded_column(schema) or super().image_column(schema)


def _sidecar_of(shard: Shard) -> str:
    return f"{shard.path.removesuffix('.tar').removesuffix('.parquet')}.parquet"


def _sidecar(root: Folder, path: str, alt_text: str | None) -> dict[str, Row]:
    with on_disk(root, path) as file:
        parquet = Parquet(file)
        if "key" not in parquet.schema.names:
            raise BadSampleError("it has no column key")
        notes = note_columns(parquet.schema, alt_text)
        wanted = ["key", "status", "error_message", *(name for theirs in notes.values() for name in theirs)]
        rows = {}
        for row in bounded_rows(parquet, wanted):
            if isinstance(row, BombError):
                raise row
            rows[str(row["key"])] = notes_of(row, notes) | _download_error(row)
        return rows


def _download_error(row: Row) -> Row:
    status = row.get("status") or "success"
    return {} if status == "success" else {"error": f"{status}: {row.get('error_message')}"}


def downloaded_column(schema: pa.Schema) -> str | None:
    """Return the column with the images in a file of the parquet format; None if all downloads failed."""
    column = next(iter(image_columns(schema)), None)
    check_names(schema, [] if column is None else [column])
    return column


def _downloaded_cells(root: Folder, path: str, max_cell: int) -> Iterator[Row]:
    number = 0
    try:
        with on_disk(root, path) as file:
            parquet = Parquet(file, max_cell)
            image = downloaded_column(parquet.schema)
            leaves = [] if image is None else image_leaves(parquet.schema, image)
            keys = [row["key"] for row in bounded_rows(parquet, ["key"]) if not isinstance(row, BombError)]
            for row in bounded_rows(parquet, ["key", *leaves]):
                if isinstance(row, BombError):
                    yield {"key": str(keys[number]), "offset": number, "error": str(row)}
                elif image is not None and row[image] is not None:
                    yield {"key": str(row["key"]), "offset": number, **measured_cell(row[image], max_cell)}
                number += 1
    except BAD_PARQUET as error:
        yield {"key": "", "error": f"broken Parquet: {damage(error)}; {number:,} rows were read before it"}
