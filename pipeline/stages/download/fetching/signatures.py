"""The formats that are kept, by the bytes with which they begin. Anything else is no image, whatever its type says."""

from __future__ import annotations

_STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\0",  # TIFF, and below
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",  # JPEG 2000, and its bare code stream
    b"\xff\x4f\xff\x51",
    b"\0\0\1\0",  # ICO
)
_PPM = tuple(b"P%d" % number + end for number in range(1, 7) for end in (b"\n", b" ", b"\t", b"\r"))


def is_image(data: bytes) -> bool:
    """Return whether bytes begin as an image of a format that `core.image_header` reads."""
    if data[:4] == b"RIFF":
        return data[8:12] == b"WEBP"
    if data[4:8] == b"ftyp":
        return data[8:12] in (b"avif", b"avis", b"mif1", b"msf1")
    return data.startswith(_STARTS) or data.startswith(_PPM)
