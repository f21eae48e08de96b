"""What img2dataset wrote: its webdataset, parquet and files formats, with its sidecars and its failed downloads."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.parquet as pq

from manifests.storage import Folder
from pipeline.pool.listing import Shard, is_candidate
from pipeline.pool.parquet import BAD_PARQUET, ROWS_AT_ONCE, damage, is_image, plain_rows
from pipeline.pool.rows import Row, image_file, known, measure, on_disk
from pipeline.pool.tars import stem, tar_rows


def read_img2dataset(root: Folder, shard: Shard) -> Iterator[Row]:
    """The rows of its sidecar, failed downloads with their message, each with what the image's header says."""
    name = shard.path.removesuffix(".tar").removesuffix(".parquet")
    try:
        sidecar = _sidecar(root, f"{name}.parquet")
    except FileNotFoundError:
        sidecar = {}
        yield {"key": "", "error": f"broken sidecar: there is no {name}.parquet"}
    except BAD_PARQUET as error:
        sidecar = {}
        yield {"key": "", "error": f"broken sidecar: {name}.parquet, {damage(error)}"}
    for row in _downloaded(root, shard):
        yield {**sidecar.pop(stem(row["key"].rpartition("/")[2]), {}), **row}
    for key, told in sidecar.items():
        yield {"error": "missing: downloaded according to the sidecar, but not in the shard", **told, "key": key}


def _sidecar(root: Folder, path: str) -> dict[str, Row]:
    wanted = ("key", "status", "error_message", "url", "caption", "sha256", "license")
    with on_disk(root, path) as file:
        parquet = pq.ParquetFile(file)
        if "key" not in parquet.schema_arrow.names:
            raise ValueError("it has no column key")
        table = parquet.read(columns=[n for n in wanted if n in parquet.schema_arrow.names])
    batches = table.to_batches()
    return {str(told["key"]): known(told) | _download_error(told) for batch in batches for told in plain_rows(batch)}


def _download_error(told: Row) -> Row:
    status = told.get("status") or "success"
    return {} if status == "success" else {"error": f"{status}: {told.get('error_message')}"}


def _downloaded(root: Folder, shard: Shard) -> Iterator[Row]:
    """The images of a shard in the webdataset, parquet or files format."""
    if shard.path.endswith(".tar"):
        with on_disk(root, shard.path) as file:
            # A shard whose downloads all failed is an empty tar, and no fault.
            yield from (r for r in tar_rows(file) if not str(r["error"]).startswith("no images"))
    elif shard.path.endswith(".parquet"):
        yield from _downloaded_cells(root, shard.path)
    else:
        folder = root.join(shard.path)
        for info in folder.files():
            if is_candidate(info.base_name):
                yield image_file(folder, Shard(info.base_name, info.size))


def _downloaded_cells(root: Folder, path: str) -> Iterator[Row]:
    number = 0
    try:
        with on_disk(root, path) as file:
            parquet = pq.ParquetFile(file)
            names = [f.name for f in parquet.schema_arrow if is_image(f.type)]
            for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=["key", *names[:1]]):
                for told in plain_rows(batch):
                    cell = told[names[0]] if names else None
                    data = cell.get("bytes") if isinstance(cell, dict) else cell
                    if data is not None:
                        yield {"key": str(told["key"]), "offset": number, **measure(data)}
                    number += 1
    except BAD_PARQUET as error:
        yield {"key": "", "error": f"broken Parquet: {damage(error)}; {number:,} rows were read before it"}
