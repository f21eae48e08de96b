"""One decoder: the same, right pixels for stages, captioners and model, whatever the file is."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin

from core.image_header import MAX_PIXELS, BadImageError
from core.images import decode, portable
from model.images import image_size, read_image

RAMP = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (4, 1))
"""256 levels from black to white in 16 bits: 0, 1, …, 255 in 8."""

EIGHT = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
SPOT = np.zeros((8, 8, 4), np.uint8)
SPOT[2:6, 2:6] = (200, 30, 30, 255)
ON_WHITE = np.full((8, 8, 3), 255, np.uint8)
ON_WHITE[2:6, 2:6] = (200, 30, 30)


def encoded(pixels: npt.NDArray[Any] | Image.Image, format_: str, **options: Any) -> bytes:
    data = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(data, format_, **options)
    return data.getvalue()


def grey(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(levels[..., None], 3, axis=2)


def tiff(pixels: npt.NDArray[Any], **tags: int) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    return encoded(pixels, "TIFF", tiffinfo=info)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, stream: bytes, before: bytes = b"") -> bytes:
    """A PNG of these header fields around a stream that need not fit."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def palette() -> Image.Image:
    return Image.fromarray(SPOT[..., :3]).quantize(4)


def keyed_16_bits() -> bytes:
    """16-bit grey, white but for one value that is declared transparent."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.full((4, 4), 0x1234))
    return png(4, 4, 16, 0, zlib.compress(rows), chunk(b"tRNS", struct.pack(">H", 0x1234)))


def keyed_rgb_16_bits() -> bytes:
    """`SPOT` in 16 bits a sample, on a colour that is declared transparent."""
    around, spot = struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC), struct.pack(">HHH", 0xC800, 0x1E00, 0x1E00)
    rows = [b"\0" + b"".join(spot if pixel else around for pixel in row) for row in SPOT[..., 3].tolist()]
    return png(8, 8, 16, 2, zlib.compress(b"".join(rows)), chunk(b"tRNS", around))


def keyed_grey(bits: int) -> bytes:
    """A row of the levels 0, 1, 2, 3 in so many bits, of which 1 is declared transparent."""
    row = {2: bytes([0b00011011]), 4: bytes([0x01, 0x23])}[bits]
    return png(4, 1, bits, 0, zlib.compress(b"\0" + row), chunk(b"tRNS", struct.pack(">H", 1)))


def premultiplied() -> bytes:
    data = bytearray(encoded(SPOT[..., [0, 3]], "TIFF"))
    at = data.index(struct.pack("<HHII", 338, 3, 1, 2))
    data[at + 8] = 1  # of ExtraSamples: the samples are multiplied by alpha, as those of SPOT are
    return bytes(data)


def min_is_white() -> bytes:
    data = bytearray(encoded(RAMP, "TIFF"))
    at = data.index(struct.pack("<HHII", 262, 3, 1, 1))
    data[at + 8] = 0
    return bytes(data)


CASES: dict[str, tuple[Callable[[], bytes], npt.NDArray[np.uint8]]] = {
    "16-bit PNG": (lambda: encoded(RAMP, "PNG"), grey(EIGHT)),
    "16-bit TIFF": (lambda: encoded(RAMP, "TIFF"), grey(EIGHT)),
    "16-bit PGM": (lambda: b"P5\n256 4\n65535\n" + RAMP.astype(">u2").tobytes(), grey(EIGHT)),
    "12-bit PGM": (lambda: b"P5\n256 4\n4095\n" + (RAMP >> 4).astype(">u2").tobytes(), grey(EIGHT)),
    "dark 16-bit PGM": (lambda: b"P5\n256 4\n65535\n" + (RAMP >> 8).astype(">u2").tobytes(), grey(EIGHT * 0)),
    "12 bits in a 16-bit PNG": (lambda: encoded(RAMP >> 4, "PNG"), grey(EIGHT >> 4)),
    "12 bits in a 16-bit TIFF that tells so": (lambda: tiff(RAMP >> 4, t281=4095), grey(EIGHT)),
    "a largest value that lies": (lambda: tiff(RAMP, t281=10), grey(EIGHT)),
    "32-bit TIFF of 16 bits": (lambda: encoded(RAMP.astype(np.int32), "TIFF"), grey(EIGHT)),
    "32-bit TIFF of 8 bits": (lambda: encoded(EIGHT.astype(np.int32), "TIFF"), grey(EIGHT)),
    "32-bit TIFF of 31 bits": (lambda: encoded(RAMP.astype(np.int32) << 15, "TIFF"), grey(EIGHT)),
    "float TIFF from 0 to 1": (lambda: encoded((EIGHT / 255).astype(np.float32), "TIFF"), grey(EIGHT)),
    "float TIFF from 0 to 255": (lambda: encoded(EIGHT.astype(np.float32), "TIFF"), grey(EIGHT)),
    "float TIFF from 0 to 65535": (lambda: encoded(RAMP.astype(np.float32), "TIFF"), grey(EIGHT)),
    "PFM": (lambda: b"Pf\n256 4\n-1.0\n" + (EIGHT / 255).astype("<f4").tobytes(), grey(EIGHT)),
    "float TIFF with NaN and below 0": (
        lambda: encoded(np.array([[np.nan, -3, 0.5, 1]], np.float32), "TIFF"),
        grey(np.array([[0, 0, 128, 255]], np.uint8)),
    ),
    "RGBA PNG": (lambda: encoded(SPOT, "PNG"), ON_WHITE),
    "RGBA WebP": (lambda: encoded(SPOT, "WEBP", lossless=True), ON_WHITE),
    "RGBA TIFF": (lambda: encoded(SPOT, "TIFF"), ON_WHITE),
    "grey with alpha": (lambda: encoded(SPOT[..., [0, 3]], "PNG"), np.where(SPOT[..., 3:] > 0, 200, 255).repeat(3, 2)),
    "palette PNG": (lambda: encoded(palette(), "PNG", transparency=palette().getpixel((0, 0))), ON_WHITE),
    "palette GIF": (lambda: encoded(palette(), "GIF", transparency=palette().getpixel((0, 0))), ON_WHITE),
    "RGB with a transparent colour": (lambda: encoded(SPOT[..., :3], "PNG", transparency=(0, 0, 0)), ON_WHITE),
    "grey with a transparent value": (
        lambda: encoded(SPOT[..., 0], "PNG", transparency=0),
        np.where(SPOT[..., 3:] > 0, 200, 255).repeat(3, 2),
    ),
    "16-bit grey with a transparent value": (keyed_16_bits, np.full((4, 4, 3), 255)),
    "16-bit RGB with a transparent colour": (keyed_rgb_16_bits, ON_WHITE),
    "2-bit grey with a transparent value": (lambda: keyed_grey(2), grey(np.array([[0, 255, 170, 255]], np.uint8))),
    "4-bit grey with a transparent value": (lambda: keyed_grey(4), grey(np.array([[0, 255, 34, 51]], np.uint8))),
    "16-bit TIFF in which 0 is white": (min_is_white, grey(255 - EIGHT)),
    "grey TIFF with premultiplied alpha": (premultiplied, np.where(SPOT[..., 3:] > 0, 200, 255).repeat(3, 2)),
    "black writing on nothing": (
        lambda: encoded(np.array([[[0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8), "PNG"),
        grey(np.array([[0, 255]], np.uint8)),
    ),
    "half transparent": (
        lambda: encoded(np.array([[[0, 0, 0, 51]]], np.uint8), "PNG"),
        np.full((1, 1, 3), 204),
    ),
    "one bit": (lambda: encoded(Image.fromarray(EIGHT).convert("1"), "PNG"), None),  # type: ignore[dict-item]
    "CMYK JPEG": (lambda: encoded(Image.fromarray(SPOT[..., :3]).convert("CMYK"), "JPEG"), None),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", CASES)
def test_stages_and_model_see_the_right_pixels(name: str, tmp_path: Path) -> None:
    data, right = CASES[name][0](), CASES[name][1]
    seen = np.asarray(decode(data))
    if right is not None:
        np.testing.assert_array_equal(seen, right)
    (tmp_path / "file").write_bytes(data)
    for source in (data, tmp_path / "file", str(tmp_path / "file")):
        np.testing.assert_array_equal(read_image(source)[0].permute(1, 2, 0).numpy(), seen)
        assert image_size(source) == seen.shape[:2]
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(read_image(image)[0].permute(1, 2, 0).numpy(), seen)
    sent = Image.open(io.BytesIO(portable(data, 4096)))
    assert sent.mode in ("RGB", "L")
    assert abs(np.asarray(sent.convert("RGB")).astype(int) - seen).mean() < 12  # encoded anew as JPEG where need be


@pytest.mark.parametrize("orientation", range(1, 9))
def test_opened_image_is_oriented_like_its_bytes(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        assert image_size(image) == image_size(data) == ((7, 5) if orientation > 4 else (5, 7))
        assert read_image(image).equal(read_image(data))


ROWS = b"".join(b"\0" + bytes(range(n, n + 96)) for n in range(32))
STREAM = zlib.compress(ROWS)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


BROKEN = {
    "cut file": png(32, 32, 8, 2, STREAM)[:-40],
    "cut stream": png(32, 32, 8, 2, STREAM[: len(STREAM) // 2]),
    "stored raw": png(32, 32, 8, 2, ROWS),
    "bad filter": png(32, 32, 8, 2, zlib.compress(ROWS[:97] + b"\x09" + ROWS[98:])),
    "flipped bit": png(32, 32, 8, 2, flipped(STREAM, len(STREAM) // 2)),
    "flipped bit of stored data": png(32, 32, 8, 2, flipped(zlib.compress(ROWS, 0), 500)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_png_is_an_error_not_a_black_image(name: str) -> None:
    with pytest.raises(BadImageError, match=r"^undecodable: "):
        decode(BROKEN[name])
    with pytest.raises(ValueError, match=r"^cannot read image: undecodable: .*; give a whole"):
        read_image(BROKEN[name])


BOMB = png(40_000, 40_000, 8, 2, zlib.compress(bytes(1000)))

_PROGRAM = """
import sys, warnings
from PIL import Image
before = Image.MAX_IMAGE_PIXELS
import core.image_header, core.images, model.images
import pipeline.pools, pipeline.execution.index, pipeline.execution.workers
assert before == Image.MAX_IMAGE_PIXELS and not [f for f in warnings.filters if "PIL" in str(f)]
from model.images import read_image
try:
    Image.open(sys.argv[1])
except Image.DecompressionBombError:
    read_image(sys.argv[1])
"""


def test_bomb_guard_stays_on_after_an_import(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BOMB)
    done = subprocess.run([sys.executable, "-c", _PROGRAM, tmp_path / "bomb.png"], capture_output=True, text=True)
    assert f"decompression bomb: 40000×40000 = 1,600,000,000 pixels > {MAX_PIXELS:,}" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("core.errors.BadSampleError: cannot read ")


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "ICO"])
def test_bomb_of_every_format_is_reported_with_its_size(format_: str) -> None:
    if format_ == "PNG":
        data = BOMB
    elif format_ == "ICO":
        data = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(BOMB), 22) + BOMB
    else:
        data = forged(format_)
    for see in (decode, read_image, image_size):
        with pytest.raises(ValueError, match=r"decompression bomb: \d+×\d+ = [\d,]+ pixels > 178,956,970"):
            see(data)


def forged(format_: str) -> bytes:
    """A small picture whose header claims 16,383 pixels a side, or more."""
    data = bytearray(encoded(Image.new("RGB", (8, 8)), format_, **({"lossless": True} if format_ == "WEBP" else {})))
    if format_ == "GIF":
        data[6:10] = struct.pack("<HH", 60_000, 60_000)
    elif format_ == "BMP":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    elif format_ == "WEBP":
        data[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)
    else:
        for tag in (256, 257):
            at = data.index(struct.pack("<HH", tag, 4 if struct.pack("<HH", tag, 4) in data else 3))
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 60_000)
    return bytes(data)


def test_chat_refuses_a_bomb_in_one_line(tmp_path: Path, vl3syn: Callable[..., CompletedProcess[str]]) -> None:
    from model import Processor, VideoLLaMA3
    from model.config import preset

    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path / "model")
    Processor.tiny().save_pretrained(tmp_path / "model")
    (tmp_path / "bomb.png").write_bytes(BOMB)
    done = vl3syn("chat", tmp_path / "model", "--image", tmp_path / "bomb.png", "What is it?")
    assert done.returncode == 1
    assert "decompression bomb: 40000×40000" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_eval_shows_16_bit_and_transparent_images_correctly(
    tmp_path: Path, vl3syn: Callable[..., CompletedProcess[str]]
) -> None:
    from model import Processor, VideoLLaMA3
    from model.config import preset

    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path / "model")
    Processor.tiny().save_pretrained(tmp_path / "model")
    ramp = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (128, 1))
    plain = grey(np.tile(np.arange(256, dtype=np.uint8), (128, 1)))
    spot = np.zeros((128, 256, 4), np.uint8)
    spot[32:96, 64:192] = (200, 30, 30, 255)
    on_white = np.where(spot[..., 3:] > 0, spot[..., :3], 255).astype(np.uint8)
    losses = {}
    for name, pixels in {"deep": ramp, "plain": plain, "cut-out": spot, "on white": on_white}.items():
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels, "PNG"))
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A red spot, a grey ramp."}]
        (tmp_path / "one.jsonl").write_text(json.dumps({"image": [f"{name}.png"], "conversations": turns}))
        done = vl3syn("eval", tmp_path / "model", "--data", tmp_path / "one.jsonl", "--max-new-tokens", 0, "--json")
        assert done.returncode == 0, done.stderr
        losses[name] = json.loads(done.stdout)["loss"]["mean"]
    assert losses["deep"] == pytest.approx(losses["plain"], rel=1e-7)
    assert losses["cut-out"] == pytest.approx(losses["on white"], rel=1e-7)
    assert losses["plain"] != pytest.approx(losses["on white"], rel=1e-7)


FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(16) + bytes(48),
    "TGA": encoded(EIGHT, "TGA"),
    "ICNS": encoded(Image.new("RGBA", (32, 32)), "ICNS"),
    "PCX": encoded(EIGHT, "PCX"),
    "DDS": encoded(Image.new("RGBA", (8, 8)), "DDS"),
    "SGI": encoded(EIGHT, "SGI"),
    "XBM": b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0xff};",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_model_refuses_the_images_that_the_pool_refuses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for see in (read_image, image_size):
        with pytest.raises(ValueError, match=r"^cannot read image: .*; give a whole JPEG"):
            see(FOREIGN[name])
    with pytest.raises(BadImageError):
        decode(FOREIGN[name])
    assert not canary.exists()
