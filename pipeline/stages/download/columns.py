"""The columns of the stage `download`: where the bytes of an image are, and what is known of them."""

from __future__ import annotations

import pyarrow as pa

from manifests.schemas import column

DESCRIBED = {
    "shard": "image_shard",
    "offset": "image_offset",
    "bytes": "image_bytes",
    "width": "image_width",
    "height": "image_height",
    "format": "image_format",
    "animated": "image_animated",
    "sha256": "image_sha256",
}
"""Columns of the index that describe an image's bytes, each with the column of `download` that later stages get."""

WRITES = pa.schema(
    [
        column("image_shard", pa.string(), "Tar with the image, in the folder of the downloaded images"),
        column("image_offset", pa.int64(), "Byte offset of the image in the tar", 0),
        column("image_bytes", pa.int64(), "Length of the stored image in bytes", 0),
        column("image_sha256", pa.string(), "SHA-256 of the stored image, as a hexadecimal number"),
        column("image_width", pa.int32(), "Displayed width of the stored image in pixels, from its header", 1),
        column("image_height", pa.int32(), "Displayed height of the stored image in pixels, from its header", 1),
        column("image_format", pa.string(), "Format of the stored image: JPEG, PNG, WEBP, …"),
        column("image_animated", pa.bool_(), "Whether the image has several frames; all columns describe the first"),
        column("image_ratio", pa.float32(), "Longer side of the stored image divided by its shorter side", 1),
        column("image_side", pa.int32(), "Shorter side of the stored image, in pixels", 1),
        column(
            "size_differs",
            pa.int8(),
            "1 if the image that was fetched has another size than the list says, else 0; null if it says none",
            0,
            1,
        ),
        column("http_status", pa.int16(), "Status of the last HTTP answer; null if there was none", 100, 999),
    ]
)
