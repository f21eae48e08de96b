"""Find the column with films in a Parquet file: bytes, or `struct{bytes, path}` as Hugging Face writes it."""

from __future__ import annotations

import re

import pyarrow as pa

from core.arrow_types import check_names, type_name
from core.errors import BadSampleError
from pipeline.pools.cells import CONTAINERS, is_image

_ACCEPTED = "bytes, or struct{bytes, path}"
_NAMES = re.compile(r"(video|film|movie|clip|mp4|webm|mkv|avi|mov)s?([_.-]?(bytes|data|content|binary|raw))?")
_SHOWN = 12  # columns that an error lists


def film_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of bytes that are called like films: `video`, `mp4`, `video_bytes`, …"""
    return [field.name for field in schema if _holds_bytes(field.type) and _NAMES.fullmatch(field.name.lower())]


def film_column(schema: pa.Schema, video: str | None) -> str:
    """Return the name of the column with the films.

    Args:
        schema: The file's schema.
        video: The name that the user gives. Default: the column that is called like a film, else like bytes.

    Raises:
        BadSampleError: There is no such column, more than one, or it does not hold bytes.
    """
    if video is not None:
        if video not in schema.names:
            raise BadSampleError(f"no column {video!r} (there are {', '.join(schema.names[:_SHOWN])})")
        check_names(schema, [video])
        if not _holds_bytes(type_ := schema.field(video).type):
            raise BadSampleError(f"column {video!r} is {type_name(type_)}; accepted: {_ACCEPTED}")
        return video
    plain = [field.name for field in schema if _holds_bytes(field.type) and CONTAINERS.fullmatch(field.name.lower())]
    candidates = film_columns(schema) or plain
    if len(candidates) > 1:
        names = f"{len(candidates)} columns ({', '.join(candidates[:_SHOWN])})"
        raise BadSampleError(f"{names} can hold the film; name one as `video` in the pool")
    if not candidates:
        types = ", ".join(f"{field.name}: {type_name(field.type)}" for field in list(schema)[:_SHOWN])
        raise BadSampleError(
            f"no column can hold the film ({types}); accepted: {_ACCEPTED}, called video, mp4, bytes, …; "
            "name another as `video` in the pool, or leave the file out with a glob such as '*.mp4'"
        )
    check_names(schema, candidates)
    return candidates[0]


def _holds_bytes(type_: pa.DataType) -> bool:
    return is_image(type_) and not pa.types.is_fixed_size_binary(type_)
