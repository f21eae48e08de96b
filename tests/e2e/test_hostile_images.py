"""Hostile image files: each kind ends as one row with its size or a clear error, and no pixel is decoded."""

from __future__ import annotations

import functools
import io
import json
import random
import re
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.schemas import INDEX
from pipeline.pools import pool_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

Make = Callable[[], bytes]

MOST = 2**31 - 1
WEBP_BOMB = bytes.fromhex("524946461a000000574542505650384c0e0000002ffebfff0f071011fd0f4444ff03")
TEXT_EXIF = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4sI", 0x0112, 2, 3, b"6h\0", 0)
NOISE = random.Random(7).randbytes(4096)


# Makers


def image(format_: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """What Pillow writes."""
    data = io.BytesIO()
    Image.new(mode, size, 0 if mode != "RGB" else (9, 99, 199)).save(data, format_, **options)
    return data.getvalue()


def frames(format_: str, first: tuple[int, int] = (40, 30)) -> bytes:
    """Two frames; the second one is another picture, else writers drop it."""
    other = Image.linear_gradient("L").convert("RGB").resize(first)
    return image(format_, size=first, save_all=True, append_images=[other])


def with_exif(orientation: Any, format_: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image(format_, exif=exif)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pixels() -> bytes:
    """What follows on the header of a small PNG."""
    return image("PNG")[33:]


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of that header and these chunks."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks)


@functools.cache
def png_bomb() -> bytes:
    """30,000×30,000 real pixels of one bit, in about 100 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    pixels = b"".join([packer.compress(row * 100) for _ in range(300)]) + packer.flush()
    return png(30_000, 30_000, chunk(b"IDAT", pixels), chunk(b"IEND", b""), bits=1, colour=0)


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header claims that size."""
    data = image("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def before_frame(*segments: bytes) -> bytes:
    """A JPEG with these whole segments behind its first two bytes."""
    data = image("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def gif_of(width: int, height: int) -> bytes:
    data = image("GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def bmp_of(width: int, height: int) -> bytes:
    data = image("BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


Tag = tuple[int, int, int, int]


def tiff(*tags: Tag, width: int = 40, height: int = 30, behind: int = 0, at: int = 8) -> bytes:
    """A grey TIFF without pixels: these tags besides the needed ones, then the offset of the next directory."""
    needed = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries = sorted([*needed, *tags])
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", at, len(entries)) + body + struct.pack("<I", behind)


def big_tiff(offset: int) -> bytes:
    return b"II+\0" + struct.pack("<HHQ", 8, 0, offset)


def icon(picture: bytes, offset: int = 22) -> bytes:
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(picture), offset) + picture


def webp_canvas(width: int, height: int, flags: int = 0, *chunks: bytes) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, flags) + sides + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jp2_of(width: int, height: int) -> bytes:
    data = image("JPEG2000")
    at = data.index(b"ihdr") + 4
    return data[:at] + struct.pack(">II", height, width) + data[at + 8 :]


def damaged(data: bytes, mark: bytes, skip: int, new: bytes) -> bytes:
    """Bytes overwritten at `skip` behind `mark`."""
    at = data.index(mark) + skip
    return data[:at] + new + data[at + len(new) :]


def zipped() -> bytes:
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.jpg", image("JPEG"))
    return data.getvalue()


def text_bomb() -> bytes:
    text = zlib.compress(bytes(40_000_000), 9)
    return png(40, 30, chunk(b"zTXt", b"Comment\0\0" + text), pixels())


# The kinds: name, file name, bytes, and the row as `one` tells it

KINDS: list[tuple[str, str, bytes | Make, str]] = [
    # Nothing, or next to nothing
    ("zero bytes", "a.jpg", b"", "empty"),
    ("one byte", "a.jpg", b"\xff", "not an image"),
    ("two bytes of JPEG", "a.jpg", b"\xff\xd8", "not an image"),
    ("NULs", "a.jpg", bytes(4096), "not an image"),
    ("random bytes", "a.jpg", NOISE, "not an image"),
    # Cut off
    ("JPEG cut in its first segment", "a.jpg", lambda: image("JPEG")[:10], "broken header"),
    ("JPEG cut before its size", "a.jpg", lambda: image("JPEG")[:100], "broken header"),
    ("JPEG cut in its size", "a.jpg", lambda: image("JPEG").partition(b"\xff\xc0")[0] + b"\xff\xc0\0", "broken header"),
    ("JPEG cut behind its header", "a.jpg", lambda: image("JPEG")[:-20], "40x30 JPEG"),
    ("PNG of the signature only", "a.png", b"\x89PNG\r\n\x1a\n", "broken header"),
    ("PNG cut in IHDR", "a.png", lambda: image("PNG")[:20], "broken header"),
    ("PNG cut behind IHDR", "a.png", lambda: image("PNG")[:33], "broken header"),
    ("PNG cut in its pixels", "a.png", lambda: image("PNG")[:-20], "40x30 PNG"),
    ("GIF cut in its size", "a.gif", lambda: image("GIF")[:8], "broken header"),
    ("GIF cut behind its size", "a.gif", lambda: image("GIF")[:13], "broken header"),
    ("GIF cut in its pixels", "a.gif", lambda: image("GIF")[:-5], "40x30 GIF"),
    ("WebP cut in RIFF", "a.webp", lambda: image("WEBP")[:11], "broken header"),
    ("WebP cut before its size", "a.webp", lambda: image("WEBP")[:24], "broken header"),
    ("WebP cut in its pixels", "a.webp", lambda: image("WEBP")[:-10], "40x30 WEBP"),
    ("WebP canvas cut in its size", "a.webp", lambda: webp_canvas(900, 700)[:26], "broken header"),
    ("lossless WebP cut in its size", "a.webp", WEBP_BOMB[:23], "broken header"),
    ("TIFF of the signature only", "a.tif", b"II*\0", "broken header"),
    ("TIFF with its directory beyond the end", "a.tif", lambda: tiff(at=1 << 20), "broken header"),
    ("TIFF cut in its directory", "a.tif", lambda: tiff()[:40], "broken header"),
    ("BigTIFF with its directory beyond any file", "a.tif", lambda: big_tiff(1 << 62), "broken header"),
    ("BigTIFF with its directory beyond 64 bits", "a.tif", lambda: big_tiff((1 << 64) - 1), "broken header"),
    ("BMP cut in its header", "a.bmp", lambda: image("BMP")[:20], "broken header"),
    ("BMP cut in its pixels", "a.bmp", lambda: image("BMP")[:200], "40x30 BMP"),
    ("AVIF cut in ftyp", "a.avif", lambda: image("AVIF")[:16], "broken header"),
    ("AVIF cut in its boxes", "a.avif", lambda: image("AVIF")[:120], "broken header"),
    ("JPEG 2000 cut in its boxes", "a.jp2", lambda: image("JPEG2000")[:30], "broken header"),
    ("icon cut in its list", "a.ico", lambda: image("ICO")[:12], "broken header"),
    # No images at all
    ("HTML named .jpg", "a.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "not an image: HTML"),
    ("HTML without doctype", "a.jpg", b"<html lang=en>", "not an image: HTML"),
    ("HTML behind a BOM and blanks", "a.jpg", b"\xef\xbb\xbf \r\n\t<!doctype HTML>", "not an image: HTML"),
    ("JSON error page", "a.jpg", json.dumps({"error": 403}).encode(), "not an image: JSON"),
    ("JSON behind a BOM", "a.jpg", b"\xef\xbb\xbf{}", "not an image: JSON"),
    ("SVG", "a.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an image: SVG"),
    ("XML", "a.png", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "not an image: XML"),
    ("PDF", "a.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "not an image: PDF"),
    ("ZIP", "a.jpg", zipped, "not an image: ZIP"),
    ("gzip", "a.jpg", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "not an image: gzip"),
    ("plain text", "a.jpg", b"Too many requests\n", "not an image"),
    ("ELF", "a", b"\x7fELF\x02\x01\x01" + bytes(200), "not an image"),
    ("HEIC", "a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported format: heic"),
    ("JPEG XL codestream", "a.jpg", b"\xff\x0a\xfa\x1f\x48\x91", "not an image"),
    ("JPEG XL container", "a.jpg", b"\0\0\0\x0cJXL \r\n\x87\n", "not an image"),
    ("MP4", "a.jpg", b"\0\0\0\x20ftypisom\0\0\2\0", "unsupported format: isom"),
    ("PSD", "a.jpg", b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x1e\0\0\0\x28\0\x08\0\3", "not an image"),
    ("EPS, for which Pillow would start Ghostscript", "a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    # Bombs: sizes that must not be decoded
    ("PNG bomb of real pixels", "a.png", png_bomb, "30000x30000 PNG bomb"),
    ("WebP bomb of 34 bytes", "a.webp", WEBP_BOMB, "16383x16383 WEBP bomb"),
    ("WebP canvas of 2**24 square", "a.webp", lambda: webp_canvas(1 << 24, 1 << 24), "16777216x16777216 WEBP bomb"),
    ("JPEG that claims 65,500 square", "a.jpg", lambda: jpeg_of(65_500, 65_500), "65500x65500 JPEG bomb"),
    ("GIF that claims 65,535 square", "a.gif", lambda: gif_of(65_535, 65_535), "65535x65535 GIF bomb"),
    ("BMP that claims 2**31-1 square", "a.bmp", lambda: bmp_of(MOST, MOST), "2147483647x2147483647 BMP bomb"),
    ("BMP that claims a width of -2**31", "a.bmp", lambda: bmp_of(-(2**31), 30), "broken header"),
    ("BMP that claims a height of -2**31", "a.bmp", lambda: bmp_of(40, -(2**31)), "broken header"),
    ("PNG that claims 2**31-1 square", "a.png", lambda: png(MOST, MOST, pixels()), "2147483647x2147483647 PNG bomb"),
    ("PNG that claims 2**32-1 square", "a.png", lambda: png(2**32 - 1, 2**32 - 1, pixels()), "broken header"),
    (
        "TIFF that claims 2**30 square",
        "a.tif",
        lambda: tiff(width=1 << 30, height=1 << 30),
        "1073741824x1073741824 TIFF bomb",
    ),
    ("TIFF that claims 2**32-1 square", "a.tif", lambda: tiff(width=2**32 - 1, height=2**32 - 1), "broken header"),
    (
        "JPEG 2000 that claims 2**30 square",
        "a.jp2",
        lambda: jp2_of(1 << 30, 1 << 30),
        "1073741824x1073741824 JPEG2000 bomb",
    ),
    ("PPM that claims 30,000 square", "a.ppm", b"P6 30000 30000 255\n", "30000x30000 PPM bomb"),
    ("PPM of gigantic numbers", "a.ppm", b"P6 " + b"9" * 5000 + b" 1 255\n", "not an image"),
    ("icon that holds a PNG bomb", "a.ico", lambda: icon(png_bomb()), "30000x30000 ICO bomb"),
    ("PNG with a text bomb before its pixels", "a.png", text_bomb, "broken header"),
    ("just below a bomb", "a.png", lambda: png(13_377, 13_377, pixels()), "13377x13377 PNG"),
    # The name says something else than the bytes
    ("PNG named .jpg", "a.jpg", lambda: image("PNG"), "40x30 PNG"),
    ("JPEG named .png", "a.png", lambda: image("JPEG"), "40x30 JPEG"),
    ("WebP named .jpg", "a.jpg", lambda: image("WEBP"), "40x30 WEBP"),
    ("GIF named .webp", "a.webp", lambda: image("GIF"), "40x30 GIF"),
    ("AVIF named .heic", "a.heic", lambda: image("AVIF"), "40x30 AVIF"),
    ("icon named .png", "a.png", lambda: image("ICO", size=(24, 16), sizes=[(24, 16)]), "24x16 ICO"),
    ("TIFF without ending", "a", lambda: image("TIFF"), "40x30 TIFF"),
    # More than one frame
    ("animated GIF", "a.gif", lambda: frames("GIF"), "40x30 GIF animated"),
    ("animated PNG", "a.png", lambda: frames("PNG"), "40x30 PNG animated"),
    ("animated WebP", "a.webp", lambda: frames("WEBP"), "40x30 WEBP animated"),
    ("animated AVIF", "a.avif", lambda: frames("AVIF"), "40x30 AVIF animated"),
    ("TIFF of two pages", "a.tif", lambda: frames("TIFF"), "40x30 TIFF animated"),
    ("still GIF", "a.gif", lambda: image("GIF"), "40x30 GIF"),
    ("MPO of two pictures", "a.jpg", lambda: frames("MPO"), "40x30 JPEG"),
    (
        "icon of three sizes",
        "a.ico",
        lambda: image("ICO", size=(64, 64), sizes=[(16, 16), (64, 64), (32, 32)]),
        "64x64 ICO",
    ),
    ("icon of a BMP", "a.ico", lambda: image("ICO", size=(32, 16), sizes=[(32, 16)], bitmap_format="bmp"), "32x16 ICO"),
    ("icon that lists nothing", "a.ico", b"\0\0\1\0\0\0", "broken header"),
    ("icon that points beyond its end", "a.ico", lambda: icon(image("PNG"), 1 << 31), "broken header"),
    # Unusual and fine
    ("CMYK JPEG", "a.jpg", lambda: image("JPEG", "CMYK"), "40x30 JPEG"),
    ("progressive JPEG", "a.jpg", lambda: image("JPEG", progressive=True), "40x30 JPEG"),
    ("16-bit PNG", "a.png", lambda: image("PNG", "I;16"), "40x30 PNG"),
    ("1-bit PNG", "a.png", lambda: image("PNG", "1"), "40x30 PNG"),
    ("palette PNG", "a.png", lambda: image("PNG", "P"), "40x30 PNG"),
    ("grey PNG with alpha", "a.png", lambda: image("PNG", "LA"), "40x30 PNG"),
    ("16-bit TIFF", "a.tif", lambda: image("TIFF", "I;16"), "40x30 TIFF"),
    ("float TIFF", "a.tif", lambda: image("TIFF", "F"), "40x30 TIFF"),
    ("1×1", "a.png", lambda: image("PNG", size=(1, 1)), "1x1 PNG"),
    ("strip of 1×20,000", "a.png", lambda: image("PNG", size=(1, 20_000)), "1x20000 PNG"),
    ("strip of 20,000×1", "a.jpg", lambda: image("JPEG", size=(20_000, 1)), "20000x1 JPEG"),
    ("BMP from top to bottom (negative height)", "a.bmp", lambda: bmp_of(40, -30), "40x30 BMP"),
    # No size
    ("PNG of zero width", "a.png", lambda: png(0, 30, pixels()), "broken header"),
    ("PNG of zero height", "a.png", lambda: png(40, 0, pixels()), "broken header"),
    ("BMP of zero height", "a.bmp", lambda: bmp_of(40, 0), "broken header"),
    ("GIF of zero size", "a.gif", lambda: gif_of(0, 0).replace(b"\x28\0\x1e\0", bytes(4)), "broken header"),
    ("GIF of zero size with a frame that is wider", "a.gif", lambda: gif_of(0, 0), "40x30 GIF"),
    ("JPEG of zero height", "a.jpg", lambda: jpeg_of(40, 0), "broken header"),
    ("icon of a PNG of zero width", "a.ico", lambda: icon(png(0, 9)), "broken header"),
    ("WebP of zero width", "a.webp", lambda: damaged(image("WEBP"), b"\x9d\x01\x2a", 3, b"\0\0"), "broken header"),
    # Broken or odd inside
    (
        "JPEG with 6 MB of segments before its size",
        "a.jpg",
        lambda: before_frame(*[segment(0xEF, NOISE * 15)] * 100),
        "40x30 JPEG",
    ),
    (
        "JPEG with a long EXIF in many segments",
        "a.jpg",
        lambda: before_frame(*[segment(0xE1, b"Exif\0\0" + NOISE * 15)] * 5),
        "40x30 JPEG",
    ),
    ("JPEG with a segment of length 0", "a.jpg", lambda: before_frame(b"\xff\xef\0\0"), "40x30 JPEG"),
    ("JPEG with padding before its markers", "a.jpg", lambda: before_frame(b"\xff" * 5000), "40x30 JPEG"),
    ("JPEG with trailing garbage", "a.jpg", lambda: image("JPEG") + NOISE, "40x30 JPEG"),
    ("JPEG with leading garbage", "a.jpg", lambda: b"\r\n" + image("JPEG"), "not an image"),
    ("JPEG without its frame header", "a.jpg", b"\xff\xd8\xff\xd9", "broken header"),
    ("EXIF that is no EXIF", "a.jpg", lambda: image("JPEG", exif=b"Exif\0\0garbage"), "40x30 JPEG"),
    (
        "EXIF with its directory beyond the end",
        "a.jpg",
        lambda: image("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        "40x30 JPEG",
    ),
    ("EXIF orientation 0", "a.jpg", lambda: with_exif(0), "40x30 JPEG"),
    ("EXIF orientation 9", "a.jpg", lambda: with_exif(9), "40x30 JPEG"),
    ("EXIF orientation as text", "a.jpg", lambda: image("JPEG", exif=TEXT_EXIF), "40x30 JPEG"),
    ("EXIF orientation 0 in a PNG", "a.png", lambda: with_exif(0, "PNG"), "40x30 PNG"),
    ("EXIF orientation 9 in a TIFF", "a.tif", lambda: tiff((274, 3, 1, 9)), "40x30 TIFF"),
    ("broken EXIF in a PNG", "a.png", lambda: png(40, 30, chunk(b"eXIf", NOISE), pixels()), "40x30 PNG"),
    (
        "broken EXIF in a WebP",
        "a.webp",
        lambda: webp_canvas(40, 30, 8, b"EXIF" + struct.pack("<I", 99) + NOISE),
        "40x30 WEBP",
    ),
    ("WebP that promises EXIF and has none", "a.webp", lambda: webp_canvas(40, 30, 8), "40x30 WEBP"),
    ("WebP with an unknown first chunk", "a.webp", b"RIFF\x20\0\0\0WEBPJUNK" + bytes(40), "broken header"),
    (
        "WebP without its signature inside",
        "a.webp",
        lambda: damaged(image("WEBP"), b"\x9d\x01\x2a", 0, b"\0\0\0"),
        "broken header",
    ),
    ("RIFF that is no WebP", "a.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "broken header"),
    (
        "PNG with a wrong checksum of IHDR",
        "a.png",
        lambda: damaged(image("PNG"), b"IHDR", 17, b"\0\0\0\0"),
        "broken header",
    ),
    ("PNG with a chunk of 2 GB", "a.png", lambda: png(40, 30, b"\x7f\xff\xff\xffabCd"), "broken header"),
    ("PNG of an impossible bit depth", "a.png", lambda: png(40, 30, pixels(), bits=3), "broken header"),
    ("TIFF whose directory leads to itself", "a.tif", lambda: tiff(behind=8), "40x30 TIFF"),
    ("TIFF of thousands of tags", "a.tif", lambda: tiff(*[(t, 3, 1, 7) for t in range(1000, 21_000)]), "40x30 TIFF"),
    (
        "TIFF of tags that overlap",
        "a.tif",
        lambda: tiff(*[(t, 1, 40_000, 0) for t in range(1000, 21_000)]),
        "40x30 TIFF",
    ),
    ("TIFF with a tag of 4 GB", "a.tif", lambda: tiff((700, 1, 2**32 - 1, 8)), "40x30 TIFF"),
    (
        "TIFF with a size of no number",
        "a.tif",
        lambda: tiff().replace(b"\0\1\4\0\1", b"\0\1\4\0\0", 1),
        "broken header",
    ),
    ("GIF with a colour table beyond its end", "a.gif", b"GIF89a\x28\0\x1e\0\xf7\0\0", "broken header"),
]


def one(row: dict[str, Any]) -> str:
    """`40x30 GIF animated`, `16383x16383 WEBP bomb`, or the error."""
    if row["width"] is None:
        return str(row["error"])
    size = f"{row['width']}x{row['height']} {row['format']}"
    animated = " animated" if row["animated"] else ""
    bomb = " bomb" if (row["error"] or "").startswith("decompression bomb: ") else ""
    return size + animated + bomb


def is_as_said(row: dict[str, Any], said: str) -> bool:
    """Sizes must be equal; of an error, the kind before the colon, and as much of the details as is said."""
    if row["width"] is not None:
        return one(row) == said
    kind, _, details = said.partition(": ")
    return one(row).partition(": ")[0] == kind and one(row).partition(": ")[2].startswith(details)


HOSTILE = [pytest.param(name, make, said, id=kind) for kind, name, make, said in KINDS]


def test_kinds_of_hostile_files_are_many_and_distinct() -> None:
    assert len({kind for kind, *_ in KINDS}) == len(KINDS) >= 60


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("name", "make", "said"), HOSTILE)
def test_hostile_file_becomes_one_row(tmp_path: Path, name: str, make: bytes | Make, said: str) -> None:
    data = make if isinstance(make, bytes) else make()
    (tmp_path / name).write_bytes(data)
    pool = pool_of(images=str(tmp_path))
    listing = pool.listing()

    table = pool.index(listing.root, listing.shards)

    assert table.schema.equals(INDEX, check_metadata=True)
    (row,) = table.to_pylist()
    assert is_as_said(row, said), one(row)
    assert (row["width"] is None) == (row["height"] is None) == (row["format"] is None)
    assert row["width"] is not None or re.fullmatch(r"[a-z ]+: .+", row["error"])
    assert (row["key"], row["shard"], row["bytes"], row["retry"]) == (name, name, len(data), False)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("name", "make", "said"), HOSTILE)
def test_hostile_member_of_a_tar_becomes_one_row(tmp_path: Path, name: str, make: bytes | Make, said: str) -> None:
    data = make if isinstance(make, bytes) else make()
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for member, content in ((name, data), ("last.png", image("PNG"))):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    pool = pool_of(tars=str(tmp_path))
    listing = pool.listing()

    row, last = pool.index(listing.root, listing.shards).to_pylist()

    assert is_as_said(row, said), one(row)
    assert (row["key"], row["bytes"], row["retry"]) == (name, len(data), False)
    assert one(last) == "40x30 PNG"


MEASURE = """
import re, sys
from pipeline.pools import pool_of

def peak():  # of this process; getrusage also counts what its parent held when it started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

def index(folder):
    pool = pool_of(images=folder)
    listing = pool.listing()
    return pool.index(listing.root, listing.shards).num_rows

index(sys.argv[1])
before = peak()
rows = index(sys.argv[2])
print(rows, peak() - before)
from PIL import Image
Image.MAX_IMAGE_PIXELS = None  # decoded all the same
Image.open(sys.argv[3]).load()
print(peak() - before)
"""


def measure(*arguments: Path) -> list[float]:
    command = [sys.executable, "-c", MEASURE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [float(number) for number in done.stdout.split()]


def test_bombs_take_little_memory(tmp_path: Path) -> None:
    small, bombs = tmp_path / "small", tmp_path / "bombs"
    small.mkdir()
    bombs.mkdir()
    for format_ in ("PNG", "WEBP", "ICO", "JPEG", "TIFF", "GIF", "BMP"):
        (small / f"{format_}.png").write_bytes(image(format_))
    (bombs / "real.png").write_bytes(png_bomb())
    assert 100_000 < (bombs / "real.png").stat().st_size < 150_000
    (bombs / "lossless.webp").write_bytes(WEBP_BOMB)
    (bombs / "icon.ico").write_bytes(icon(png_bomb()))
    (bombs / "text.png").write_bytes(text_bomb())
    (bombs / "overlap.tif").write_bytes(tiff(*[(t, 1, 200_000, 0) for t in range(1000, 21_000)]))
    for name, data in {"a.jpg": jpeg_of(65_500, 65_500), "a.gif": gif_of(65_535, 65_535)}.items():
        (bombs / name).write_bytes(data)

    rows, grown, decoded = measure(small, bombs, bombs / "real.png")

    assert rows == 7
    assert grown < 30, f"{grown} MB"
    assert decoded > 700, "the measure does not see a decoded bomb"
