"""Write shards as tars for webdataset: `<id>.jpg`, and `<id>.json` with all other columns. `datasets` opens them, too.

In such tars, the extension of a member names a column. So every image has the same extension, whatever its format. And
every column keeps its type in all rows: `datasets` takes types from the card, or else from the first five rows.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Collection, Iterator
from typing import IO, Any

import pyarrow as pa

from core.arrow_types import is_list, is_text
from manifests.storage import Folder

IMAGE_ENDING = "jpg"
"""Extension of every image. `webdataset` decodes few other extensions, and decodes this one by the image's bytes."""

_DTYPES = {"float": "float32", "double": "float64", "halffloat": "float16"}  # Arrow's names and those of `datasets`


def write_tar(
    folder: Folder, name: str, schema: pa.Schema, groups: Iterator[pa.Table], earlier_form: bool = False
) -> None:
    """Write a tar shard atomically. In its JSON, a missing text is "", a missing list [], NaN and infinity null.

    Args:
        folder: The dataset's folder.
        name: From `shard_name`.
        schema: From `shard_schema`.
        groups: Tables of `schema`.
        earlier_form: Whether to use the form of publications that an earlier version started: each image has the
            extension of its format, and values are unchanged.
    """
    missing = {field.name: _missing(field.type) for field in schema}
    subset, _, base = name.rpartition("/")
    with (
        folder.join(subset).writing(base) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for table in groups:
            for row in table.to_pylist():
                image = row.pop("image")
                if not earlier_form:
                    row = {key: missing[key] if value is None else _finite(value) for key, value in row.items()}
                _add(tar, image["path"] if earlier_form else f"{row['id']}.{IMAGE_ENDING}", image["bytes"])
                _add(tar, f"{row['id']}.json", json.dumps(row, ensure_ascii=False, allow_nan=earlier_form).encode())


def copied_tar(folder: Folder, name: str, source: IO[bytes], keys: Collection[str]) -> None:
    """Write a tar shard anew, atomically, without the members of some keys. The others keep their bytes.

    Args:
        folder: The dataset's folder.
        name: From `shard_name`.
        source: The shard.
        keys: Names of members up to their first dot.
    """
    subset, _, base = name.rpartition("/")
    with (
        tarfile.open(fileobj=source, mode="r|") as old,
        folder.join(subset).writing(base) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in old:
            if member.name.partition(".")[0] not in keys:
                new.addfile(member, old.extractfile(member))


def tar_features(schema: pa.Schema) -> list[dict[str, object]]:
    """Return the columns of tars of `schema`, as a card declares them for `datasets` (`dataset_info.features`)."""
    columns = [{"name": field.name, **_feature(field.type)} for field in schema if field.name != "image"]
    return [
        {"name": IMAGE_ENDING, "dtype": "image"},
        {"name": "json", "struct": columns},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _feature(type_: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(type_):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in type_.fields]}
    if is_list(type_):
        entry = _feature(type_.value_type)
        return {"list": entry.get("struct") or entry.get("dtype") or entry}
    return {"dtype": _DTYPES.get(str(type_), str(type_))}


def _missing(type_: pa.DataType) -> Any:
    return "" if is_text(type_) else [] if is_list(type_) else None


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, with None, also in nested values."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # time and owner are fixed, so the same rows give the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
