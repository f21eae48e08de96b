"""COYO-700M's own scores, read from its published metadata: no image is needed."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.stages import Stage
from manifests.schemas import bounds, column

SLACK = 1e-3
"""How far a score may exceed its range, due to half precision. It is then clipped to the range."""

_LARGEST_COUNT = (1 << 31) - 1  # the largest int32


class Coyo(Stage):
    """The metadata of an image in COYO-700M besides its URL (kakaobrain/coyo-700m, README). It has no settings.

    The similarities compare the image with its *alt text*. VL3-Syn7M filters by the similarity to a BLIP-2 caption;
    these values can only approximate it. The data set was filtered before publication: aspect ratio up to 3, shorter
    side from 200 pixels, NSFW up to 0.5. Any Parquet pool with such columns works; a missing column gives nulls.
    """

    name: ClassVar = "coyo"
    driver_rows: ClassVar = 100_000
    optional_pool_columns: ClassVar = True
    reads: ClassVar = (
        "pool.aesthetic_score_laion_v2",
        "pool.clip_similarity_vitb32",
        "pool.clip_similarity_vitl14",
        "pool.watermark_score",
        "pool.nsfw_score_opennsfw2",
        "pool.nsfw_score_gantman",
        "pool.image_phash",
        "pool.num_faces",
        "pool.word_count",
    )
    writes: ClassVar = pa.schema(
        [
            column("coyo_aesthetic", pa.float32(), "Aesthetic score by LAION-Aesthetics V2; mean 4.77", 0, 10),
            column("coyo_clip_b32", pa.float32(), "Cosine of image and alt text by CLIP ViT-B/32; mean 0.291", -1, 1),
            column("coyo_clip_l14", pa.float32(), "Cosine of image and alt text by CLIP ViT-L/14; mean 0.255", -1, 1),
            column("coyo_watermark", pa.float32(), "Probability of a watermark; mean 0.18", 0, 1),
            column("coyo_nsfw", pa.float32(), "Probability of being unsafe for work, by OpenNSFW2", 0, 1),
            column("coyo_nsfw_gantman", pa.float32(), "Probability of being unsafe for work, by GantMan", 0, 1),
            column("coyo_phash", pa.string(), "Perceptual hash (pHash) of the image, as COYO writes it"),
            column("coyo_faces", pa.int32(), "Number of detected faces", 0),
            column("coyo_words", pa.int32(), "Number of words of the alt text", 0),
        ]
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        converted: list[pa.Array] = []
        flaws: dict[int, str] = {}
        for source, field in zip(self.reads, self.writes, strict=True):
            convert = _texts if pa.types.is_string(field.type) else _numbers
            values, bad = convert(batch[source], field)
            converted.append(values)
            for row, flaw in bad.items():
                flaws.setdefault(row, f"bad metadata: {source.removeprefix('pool.')} {flaw}")
        errors = [flaws.get(row) for row in range(batch.num_rows)]
        fine = pa.array([error is None for error in errors], pa.bool_())
        columns = [pc.if_else(fine, values, None) for values in converted]
        return pa.table([*columns, pa.array(errors, pa.string())], names=[*self.writes.names, "error"])


def _numbers(values: pa.ChunkedArray, field: pa.Field) -> tuple[pa.Array, dict[int, str]]:
    """Convert a numeric column to the type of `field`; return it, and an error for each bad row. NaN becomes null."""
    if not _is_number(values.type):
        return _refused(values, field, "not a number")
    # Counts may be floats: pandas writes integers with missing values as floats.
    numbers = values.cast(pa.float64(), safe=False).to_numpy()
    low, high = bounds(field)
    whole = pa.types.is_integer(field.type)
    high, slack = (_LARGEST_COUNT, 0.0) if whole else (high, SLACK)
    bad = (numbers < low - slack) | (numbers > high + slack)
    if whole:
        bad |= (numbers != np.floor(numbers)) & ~np.isnan(numbers)
    missing = bad | np.isnan(numbers)
    converted = pa.array(np.where(missing, 0, numbers.clip(low, high)), mask=missing).cast(field.type)
    span = f"a whole number from {low:g}" if whole else f"from {low:g} to {high:g}"
    return converted, {int(row): f"is {numbers[row]:g}, not {span}" for row in np.flatnonzero(bad)}


def _texts(values: pa.ChunkedArray, field: pa.Field) -> tuple[pa.Array, dict[int, str]]:
    """Convert a text column; return it, and an error for each bad row. Bytes that are not UTF-8 are escaped."""
    if not _is_text(values.type):
        return _refused(values, field, "not text")
    data = values.cast(pa.binary()).to_pylist()
    texts = [None if text is None else text.decode("utf-8", "backslashreplace") for text in data]
    return pa.array(texts, field.type), {}


def _refused(values: pa.ChunkedArray, field: pa.Field, why: str) -> tuple[pa.Array, dict[int, str]]:
    """Return nulls for a column of the wrong type, and an error for each value that is not null."""
    rows = np.flatnonzero(values.is_valid().to_numpy())
    return pa.nulls(len(values), field.type), {int(row): f"is {values.type}, {why}" for row in rows}


def _is_number(type_: Any) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _is_text(type_: Any) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))
