"""Define the columns of the index and of stage tables, with meaning, unit and range."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyarrow as pa


def column(
    name: str,
    type_: pa.DataType,
    doc: str,
    low: float = -math.inf,
    high: float = math.inf,
    nominal: bool = False,
    reference_column: str | None = None,
    control_tokens_of: str | None = None,
    passes_unknown: bool = False,
    bulky: bool = False,
) -> pa.Field:
    """Return a documented column.

    Args:
        name: Column name, unique among all stages of a recipe.
        type_: Arrow type.
        doc: Meaning of the values, with their unit.
        low: Smallest possible value; a threshold below it is refused.
        high: Largest possible value; a threshold above it is refused.
        nominal: Whether integers are names (a cluster, a hash, another image's id). They make groups, but are not
            compared with thresholds.
        reference_column: For values about two images: the column with the second image's id.
        control_tokens_of: The text column of the same table whose control tokens this column counts. Readers count them
            where an earlier version stored no value.
        passes_unknown: Whether null means that the value is not known yet, as the size of an image that is only a URL:
            then `min`, `max` and `top` let it pass, and a later stage decides.
        bulky: Whether values take much space, such as stored frames. They are neither in manifests nor published.
    """
    meta = {"doc": doc, "low": repr(float(low)), "high": repr(float(high))}
    meta |= {"nominal": "yes"} if nominal else {}
    meta |= {"witness": reference_column} if reference_column else {}
    meta |= {"control_tokens_of": control_tokens_of} if control_tokens_of else {}
    meta |= {"passes_unknown": "yes"} if passes_unknown else {}
    meta |= {"bulky": "yes"} if bulky else {}
    return pa.field(name, type_, metadata=meta)


def bounds(field: pa.Field) -> tuple[float, float]:
    """Return the declared range (low, high) of a column made by `column`."""
    meta = field.metadata or {}
    return float(meta.get(b"low", b"-inf")), float(meta.get(b"high", b"inf"))


def reference_column_of(field: pa.Field) -> str | None:
    """Return the column with the second image's id, for a column about two images; else None."""
    name = (field.metadata or {}).get(b"witness")
    return name.decode() if name else None


def text_of(field: pa.Field) -> str | None:
    """Return the text column whose control tokens this column counts; None if it does not count any."""
    text = (field.metadata or {}).get(b"control_tokens_of")
    return text.decode() if text else None


def passes_unknown(field: pa.Field) -> bool:
    """Return whether a null of this column passes rules that compare it, as its value is not known yet."""
    return b"passes_unknown" in (field.metadata or {})


def is_bulky(field: pa.Field) -> bool:
    """Return whether the column is left out of manifests and publications: embeddings, and columns made `bulky`."""
    return bool(pa.types.is_fixed_size_list(field.type)) or b"bulky" in (field.metadata or {})


def is_list(field: pa.Field) -> bool:
    """Return whether each row has a list of values, of any length; an embedding is no such list."""
    return bool(pa.types.is_list(field.type) or pa.types.is_large_list(field.type))


def is_amount(field: pa.Field) -> bool:
    """Return whether the column's values can be compared with a threshold: numbers that are not nominal."""
    number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return bool(number) and b"nominal" not in (field.metadata or {})


ID = column("id", pa.int64(), "Id of the image: the pool's own integer, else a hash of shard and key (63 bits)")
ERROR = column("error", pa.string(), "Why the row failed, as `kind: details`; null if it did not fail")
RETRY = column(
    "retry", pa.bool_(), "Whether the next run computes the failed row again, for example after a server was away"
)

INDEX = pa.schema(
    [
        ID,
        column("shard", pa.string(), "File that holds the image, relative to the pool"),
        column("key", pa.string(), "Name of the image in its shard; a label that is never used as a path"),
        column("offset", pa.int64(), "Position in the shard: byte offset (tar), row number (Parquet), 0 (image file)"),
        column(
            "width",
            pa.int32(),
            "Displayed width in pixels (EXIF orientation applied); null: unknown",
            0,
            passes_unknown=True,
        ),
        column(
            "height",
            pa.int32(),
            "Displayed height in pixels (EXIF orientation applied); null: unknown",
            0,
            passes_unknown=True,
        ),
        column("format", pa.string(), "Format of the bytes, whatever the file's name: JPEG, PNG, WEBP, …"),
        column("animated", pa.bool_(), "Whether the image has several frames; all columns describe the first"),
        column("bytes", pa.int64(), "Length of the encoded image in bytes", 0),
        column("shard_bytes", pa.int64(), "Length of the shard when it was indexed, in bytes", 0),
        column("sha256", pa.string(), "SHA-256 of the encoded image, if the pool has it"),
        column("url", pa.string(), "URL that the image was downloaded from, if the pool has it"),
        column("alt_text", pa.string(), "Text that came with the image, if the pool has it"),
        column("license", pa.string(), "Licence of the image, if the pool has it"),
        column(
            "text_encoding",
            pa.string(),
            "Encoding of texts that are not UTF-8, such as windows-1252; `unknown`: bytes became U+FFFD",
        ),
        ERROR,
        RETRY,
    ]
)

FILM_INDEX = pa.schema(
    [
        *INDEX,
        column("duration", pa.float64(), "Length of the film in seconds", 0),
        column("fps", pa.float32(), "Average frames per second; null: unknown", 0),
        column("frame_count", pa.int64(), "Number of frames, by the container or by its rate; null: unknown", 0),
        column("codec", pa.string(), "Codec of the video stream, by FFmpeg's name"),
        column("has_audio", pa.bool_(), "Whether the film has an audio stream"),
        column("variable_rate", pa.bool_(), "Whether the distances between frames differ; null: unknown"),
    ]
)
"""The index of a pool of films. `width` and `height` are those of an upright frame, `format` is the container."""

CLIP_INDEX = pa.schema(
    [
        *FILM_INDEX,
        column("film_id", pa.int64(), "Id of the film in the run of films", nominal=True),
        column("start", pa.float64(), "Start of the clip on the film's clock, in seconds", 0),
        column("end", pa.float64(), "End of the clip on the film's clock, in seconds", 0),
        column("scene_start", pa.float64(), "Start of the piece of film that the clip is cut from, in seconds", 0),
        column("scene_end", pa.float64(), "End of that piece. The pieces of a film are the whole film", 0),
    ]
)
"""The index of a pool of clips. `duration` is that of the clip; the file and what it holds are those of the film."""

_INDEXES = {"videos": FILM_INDEX, "clips": CLIP_INDEX}


def index_schema(pool: Mapping[str, object]) -> pa.Schema:
    """Return the columns of the index of a run, by the pool in its recipe: `{videos: …}`, `{clips: …}` or images."""
    return next((schema for kind, schema in _INDEXES.items() if kind in pool), INDEX)


def table_schema(writes: pa.Schema) -> pa.Schema:
    """Return the schema of a stage table: `id`, the stage's columns, `error` and `retry`."""
    return pa.schema([ID, *writes, ERROR, RETRY])
