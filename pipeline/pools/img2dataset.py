"""Read the output of img2dataset: webdataset, parquet and files format, with sidecars and failed downloads."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from core.arrow_types import check_names
from core.errors import BadSampleError
from core.parquet import BAD_PARQUET, BombError, Parquet
from manifests.storage import Folder
from pipeline.pools.cells import image_columns, image_leaves
from pipeline.pools.entries import Entry, entries
from pipeline.pools.listing import Pool, Shard, is_candidate
from pipeline.pools.parquet import bounded_rows, damage, measured_cell, note_columns
from pipeline.pools.rows import Row, image_file, notes_of, on_disk
from pipeline.pools.side_files import full_stem, stem
from pipeline.pools.tars import tar_rows


def read_img2dataset(root: Folder, shard: Shard, pool: Pool) -> Iterator[Row]:
    """Yield the index rows of a shard: sidecar columns and image header, or the error message of a failed download."""
    name = shard.path.removesuffix(".tar").removesuffix(".parquet")
    try:
        sidecar = _sidecar(root, f"{name}.parquet", pool.alt_text)
    except FileNotFoundError:
        sidecar = {}
        yield {"key": "", "error": f"broken sidecar: there is no {name}.parquet"}
    except BAD_PARQUET as error:
        sidecar = {}
        yield {"key": "", "error": f"broken sidecar: {name}.parquet, {damage(error)}"}
    for row in _downloaded(root, shard, pool):
        base = row["key"].rpartition("/")[2]
        name = full_stem(base) if full_stem(base) in sidecar else stem(base)
        yield {**sidecar.pop(name, {}), **row}
    for key, notes_ in sidecar.items():
        yield {"error": "missing: downloaded according to the sidecar, but not in the shard", **notes_, "key": key}


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


def _downloaded(root: Folder, shard: Shard, pool: Pool) -> Iterator[Row]:
    """Yield the images of a shard in the webdataset, parquet or files format."""
    if shard.path.endswith(".tar"):
        with on_disk(root, shard.path) as file:
            # An empty tar is no error: all of its downloads failed.
            yield from (r for r in tar_rows(file) if not str(r["error"]).startswith("no images"))
    elif shard.path.endswith(".parquet"):
        yield from _downloaded_cells(root, shard.path, pool.max_cell)
    else:
        folder = root.join(shard.path)
        for entry in sorted(entries(folder, pool.follow_links, root, recursive=False)):
            if is_candidate(entry.path):
                yield _downloaded_file(folder, entry, pool)


def _downloaded_file(folder: Folder, entry: Entry, pool: Pool) -> Row:
    if entry.problem:
        return {"key": entry.path, "error": entry.problem}
    return image_file(folder, Shard(entry.path, entry.size), pool.follow_links)


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
