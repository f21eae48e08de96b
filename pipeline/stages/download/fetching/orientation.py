"""The EXIF orientation of an image that is resized: img2dataset's resizer ignores it and leaves it out of its JPEG."""

from __future__ import annotations

import struct
from typing import BinaryIO

_UPRIGHT = 1
_JPEG_START = b"\xff\xd8"


def orientation_of(image: BinaryIO) -> int:
    """Return the EXIF orientation of an encoded image, 1 to 8 (1: upright, or unknown)."""
    import exifread

    image.seek(0)
    try:
        orientation = exifread.process_file(image, details=False)["Image Orientation"].values[0]
    except Exception:  # parsers of hostile bytes may raise anything; the pixels may still be fine
        return _UPRIGHT
    return orientation if orientation in range(1, 9) else _UPRIGHT


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Return a JPEG that has no EXIF with an EXIF of this orientation alone."""
    if orientation == _UPRIGHT or not jpeg.startswith(_JPEG_START):
        return jpeg
    # A TIFF header, and a directory of one entry: the tag 0x0112, one 16-bit number.
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return _JPEG_START + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
