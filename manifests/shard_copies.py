"""Write a published shard anew without some of its images. All that stays keeps its bytes and its order.

A shard written anew takes the place of the old one at once (`Folder.writing`): readers see one or the other.
"""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.checksums import UNREADABLE
from manifests.shards import write_parquet
from manifests.storage import Folder
from manifests.tar_shards import copied_tar

IDENTITY: Mapping[str, pl.DataType] = {
    "id": pl.Int64(),
    "sha256": pl.String(),
    "url": pl.String(),
    "source_shard": pl.String(),
    "source_key": pl.String(),
}
"""Columns of a shard by which a request may name an image."""

_LONGEST_JSON = 64 << 20
"""Bytes of a row's JSON in a tar; a longer one is not ours."""

_ARROW_SCHEMA = b"ARROW:schema"  # metadata key of Arrow's own schema in a Parquet file

_REMEDY = "delete it and publish again: it is written again"


def identities(folder: Folder, file: pafs.FileInfo) -> pl.DataFrame:
    """Return the columns `IDENTITY` of a shard. A column that it lacks is null.

    Raises:
        UserError: The shard is damaged.
    """
    with _reading(folder, file.path):
        if file.path.endswith(".parquet"):
            with folder.filesystem.open_input_file(file.path) as opened:
                parquet = pq.ParquetFile(opened, page_checksum_verification=True)
                names = [name for name in IDENTITY if name in parquet.schema_arrow.names]
                stored = pl.DataFrame(parquet.read(names, use_threads=False))
        else:
            with folder.filesystem.open_input_stream(file.path) as stream:
                stored = pl.DataFrame(list(_rows_of_tar(stream)), dict(IDENTITY))
    lacking = [pl.lit(None, type_).alias(name) for name, type_ in IDENTITY.items() if name not in stored.columns]
    return stored.with_columns(lacking).select(pl.col(name).cast(type_) for name, type_ in IDENTITY.items())


def write_without(folder: Folder, name: str, ids: Collection[int]) -> int:
    """Write a shard anew without the images of some ids. A shard that has none of them stays as it is.

    Args:
        folder: The dataset's folder.
        name: The shard, as `manifests.shards.shard_name` names it.
        ids: The images.

    Returns:
        The number of images that were in it.

    Raises:
        UserError: The shard is damaged.
    """
    path = f"{folder.path}/{name}"
    with _reading(folder, path):
        if name.endswith(".parquet"):
            return _parquet_without(folder, name, ids)
        present = set(identities(folder, folder.filesystem.get_file_info(path))["id"]) & set(ids)
        if present:
            with folder.filesystem.open_input_stream(path) as stream:
                copied_tar(folder, name, stream, {str(id_) for id_ in present})
        return len(present)


def _parquet_without(folder: Folder, name: str, ids: Collection[int]) -> int:
    unwanted = pa.array(sorted(ids), pa.int64())
    with folder.filesystem.open_input_file(f"{folder.path}/{name}") as opened:
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        count = pc.sum(pc.is_in(parquet.read(["id"])["id"], unwanted)).as_py() or 0
        if count:
            schema = _as_written(parquet)
            write_parquet(folder, name, schema, _groups_without(parquet, unwanted, schema))
    return int(count)


def _groups_without(parquet: pq.ParquetFile, ids: pa.Array, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of each row group that stay; no group without rows, which `datasets` cannot open."""
    for number in range(parquet.num_row_groups):
        group = parquet.read_row_group(number, use_threads=False)
        kept = group.filter(pc.invert(pc.is_in(group["id"], ids)))
        if kept.num_rows:
            yield pa.table(kept.columns, schema=schema)


def _as_written(parquet: pq.ParquetFile) -> pa.Schema:
    """Return the columns as they were written. What pyarrow reads has numbers of fields as metadata besides."""
    stored = (parquet.metadata.metadata or {}).get(_ARROW_SCHEMA)
    if stored is None:
        return parquet.schema_arrow.remove_metadata()
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(stored))).remove_metadata()


def _rows_of_tar(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if not member.name.endswith(".json"):
                continue
            if member.size > _LONGEST_JSON or (opened := tar.extractfile(member)) is None:
                raise tarfile.ReadError(f"{member.name} is no row")
            row = json.loads(opened.read())
            yield {name: row.get(name) or None if name != "id" else row["id"] for name in IDENTITY}


@contextmanager
def _reading(folder: Folder, path: str) -> Iterator[None]:
    """Turn what readers raise over damaged bytes into a UserError. A disk that fails raises its own error."""
    try:
        yield
    except (*UNREADABLE, tarfile.TarError) as error:
        if isinstance(error, UserError) or getattr(error, "errno", None) is not None:
            raise
        with folder.filesystem.open_input_file(path) as opened:
            opened.read(1)  # raises if the network failed, and not the file
        raise UserError(f"{path}: the shard is damaged ({' '.join(str(error).split())}); {_REMEDY}") from error
