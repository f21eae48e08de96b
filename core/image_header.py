"""Read an image's header: displayed size, format, animation. No pixel is decoded, whatever the bytes claim."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from core.errors import BadSampleError
from core.text import printable

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats whose headers Pillow reads. To open a WebP, Pillow allocates the canvas; to open an icon, it decodes it. So
the headers of both are read here."""

IMAGE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif .ico "
    ".jp2 .j2k .j2c .jpc .jpf .jpx .ppm .pgm .pbm .pnm .pfm".split()
)
"""Files with one of these endings, or with none, may be images. Their bytes decide the format."""

MAX_PIXELS = 178_956_970
"""A larger image is a decompression bomb: 512 MiB of RGB, Pillow's own limit. `Header.bomb` and `decode` check it."""

MAX_BYTES = 1_000_000_000
"""Largest encoded image, in bytes. A shard's row group holds at least one image, and the trainer refuses row groups
above 1 GiB."""

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class BadImageError(BadSampleError):
    """The bytes are not a readable image; the text is the row's error, as `kind: details`."""


@dataclass(frozen=True)
class Header:
    """Displayed width and height in pixels, format by content, and whether the image has more than one frame."""

    width: int
    height: int
    format: str
    animated: bool

    @property
    def bomb(self) -> str | None:
        """The error of an image that is too large to decode; None for other images."""
        pixels = self.width * self.height
        if pixels <= MAX_PIXELS:
            return None
        return f"decompression bomb: {self.width}×{self.height} = {pixels:,} pixels > {MAX_PIXELS:,}"


def check_length(length: int) -> None:
    """Refuse an encoded image of more than `MAX_BYTES` bytes.

    Raises:
        BadImageError: The image is longer.
    """
    if length > MAX_BYTES:
        raise BadImageError(f"too long: {length:,} bytes > {MAX_BYTES:,}")


def read_header(file: BinaryIO) -> Header:
    """Read the header of the encoded image in `file`, which must be seekable.

    Raises:
        BadImageError: The bytes are not an image, or their header is broken or cut off.
        OSError: `file` itself could not be read.
    """
    start = file.read(32)
    if not start:
        raise BadImageError("empty: 0 bytes")
    try:
        if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            header = _webp(file, start)
        else:
            header = _icon(file) if start[:4] == _ICON else _by_pillow(file)
    except Exception as error:  # parsers of hostile bytes may raise anything; each exception is this row's error
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk or the network failed; EINVAL means that the image contains an impossible file offset
        raise BadImageError(_diagnosis(file, error)) from error
    if not 0 < min(header.width, header.height) <= max(header.width, header.height) < 1 << 31:
        raise BadImageError(f"broken header: {header.format} of {header.width}×{header.height} pixels")
    return header


def _by_pillow(file: BinaryIO) -> Header:
    with identify(file, FORMATS) as image:
        width, height = image.size
        format_ = image.format or "?"
        if format_ != "TIFF" and orientation_of(image) in _TURNED:  # Pillow turns the size of a TIFF itself
            width, height = height, width
        # A phone's MPO is a JPEG with a depth or preview picture behind it, not an animation.
        animated = format_ != "MPO" and bool(getattr(image, "is_animated", False))
        return Header(width, height, "JPEG" if format_ == "MPO" else format_, animated)


def identify(file: BinaryIO, formats: Sequence[str]) -> ImageFile.ImageFile:
    """Open an image by its content, in one of the given formats. No pixel is decoded.

    Pillow's `Image.open` refuses a decompression bomb before it reports the size, unless the limit is lifted for the
    whole process. So its plugins are tried here one by one. Callers that decode must check the size against
    `MAX_PIXELS`.

    Args:
        file: A seekable file. The image continues to read from it.
        formats: Pillow's names of formats, such as JPEG.

    Raises:
        UnidentifiedImageError: None of the formats fits.
    """
    Image.init()  # registers the plugins, once
    file.seek(0)
    start = file.read(16)
    for name in formats:
        factory, accepts = Image.OPEN[name]
        try:
            if accepts is None or accepts(start) is True:
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # the plugin does not recognise the bytes
            continue
    raise UnidentifiedImageError("cannot identify image file")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8 (1: upright). Damaged EXIF counts as upright, as in viewers."""
    if image.format == "PNG" and "exif" not in image.info:  # getexif() would decode the pixels to read what follows
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # parsers of hostile bytes may raise anything; the pixels may still be fine
        return 1


def _webp(file: BinaryIO, start: bytes) -> Header:
    """Read a WebP container (RFC 9649). VP8X, VP8 or VP8L comes first; EXIF, if any, comes after the pixels."""
    kind = start[12:16]
    if len(start) < (25 if kind == b"VP8L" else 30):
        raise BadSampleError("cut off")
    if kind == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", start[26:30]))
        return Header(width, height, "WEBP", False)
    if kind == b"VP8L" and start[20] == 0x2F:
        (sides,) = struct.unpack("<I", start[21:25])
        return Header((sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1, "WEBP", False)
    if kind != b"VP8X":
        raise BadSampleError(f"WebP chunk {kind!r}")
    flags = start[20]
    width = int.from_bytes(start[24:27], "little") + 1
    height = int.from_bytes(start[27:30], "little") + 1
    if flags & 0x08 and _webp_orientation(file) in _TURNED:
        width, height = height, width
    return Header(width, height, "WEBP", bool(flags & 0x02))


def _webp_orientation(file: BinaryIO) -> int:
    position = 12
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return 1
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"EXIF":
            holder = Image.new("L", (1, 1))
            holder.info["exif"] = file.read(min(length, 1 << 20))
            return orientation_of(holder)
        position += 8 + length + length % 2


def _icon(file: BinaryIO) -> Header:
    """Read the header of the largest picture in a Windows icon: a PNG, or a BMP with a mask below it."""
    file.seek(4)
    (count,) = struct.unpack("<H", file.read(2))
    entries = [struct.unpack("<BB10xI", file.read(16)) for _ in range(count)]
    *_, offset = max(entries, key=lambda e: (e[0] or 256) * (e[1] or 256))
    file.seek(offset)
    start = file.read(24)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", start[16:24])
        return Header(width, height, "ICO", False)
    width, height = struct.unpack("<ii", start[4:12])
    return Header(width, abs(height) // 2, "ICO", False)


_ICON = b"\0\0\1\0"
_KNOWN = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (_ICON, "ICO"),
)
_FOREIGN = (
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<svg", "SVG, a drawing without pixels"),
    (b"<?xml", "XML"),
    (b"%pdf", "PDF"),
    (b"pk\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"{", "JSON or text"),
)


def _diagnosis(file: BinaryIO, error: Exception) -> str:
    file.seek(0)
    start = file.read(64)
    for magic, name in _KNOWN:
        if start.startswith(magic):
            return f"broken header: {name}, {_brief(error)}"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return f"broken header: AVIF, {_brief(error)}"
    if start[4:8] == b"ftyp":
        return f"unsupported format: {printable(start[8:12].decode('latin-1'))}"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, name in _FOREIGN:
        if text.startswith(magic):
            return f"not an image: {name}"
    return f"not an image: begins with {start[:8].hex(' ')}"


def _brief(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "cut off or damaged"
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
