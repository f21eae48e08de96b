"""`read_header` tells the displayed size and the format of images, and of anything else that they are none."""

from __future__ import annotations

import errno
import functools
import io
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from core.image_header import MAX_PIXELS, BadImageError, Header, read_header

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ORIENTATION = ExifTags.Base.Orientation
ORIENTED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
PLAIN = (*ORIENTED, "GIF", "BMP", "ICO", "JPEG2000", "PPM")


def read_bytes(data: bytes) -> Header:
    return read_header(io.BytesIO(data))


@functools.cache
def encoded(format_: str, orientation: int | None = None, size: tuple[int, int] = (24, 10)) -> bytes:
    options: dict[str, Any] = {}
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = orientation
    if format_ == "ICO":
        options["sizes"] = [size]
    data = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize(size).save(data, format_, **options)
    return data.getvalue()


def displayed(data: bytes) -> tuple[int, int]:
    """The size that a viewer shows, from the decoded pixels."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return ImageOps.exif_transpose(image).size


def size_of(data: bytes) -> tuple[int, int]:
    header = read_bytes(data)
    return header.width, header.height


@pytest.mark.parametrize("format_", PLAIN)
def test_header_has_size_and_format(format_: str) -> None:
    assert read_bytes(encoded(format_)) == Header(24, 10, format_, False)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ORIENTED)
def test_displayed_size_of_every_orientation(format_: str, orientation: int) -> None:
    data = encoded(format_, orientation)
    assert size_of(data) == displayed(data) == ((10, 24) if orientation >= 5 else (24, 10))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
def test_orientation_is_read_in_both_byte_orders(format_: str, order: str) -> None:
    sign = "<" if order == "II" else ">"
    entry = struct.pack(f"{sign}HHIHH", ORIENTATION, 3, 1, 6, 0)
    exif = order.encode() + struct.pack(f"{sign}HIH", 42, 8, 1) + entry + bytes(4)
    data = io.BytesIO()
    Image.new("RGB", (24, 10)).save(data, format_, exif=b"Exif\0\0" + exif)
    assert size_of(data.getvalue()) == displayed(data.getvalue()) == (10, 24)


@pytest.mark.parametrize(("lossless", "mode"), [(True, "RGB"), (False, "RGB"), (True, "RGBA"), (False, "RGBA")])
@pytest.mark.parametrize("size", [(1, 1), (2, 300), (16_383, 1), (255, 257)])
def test_webp_of_every_kind_is_read(lossless: bool, mode: str, size: tuple[int, int]) -> None:
    data = io.BytesIO()
    Image.new(mode, size, 77).save(data, "WEBP", lossless=lossless)
    assert read_bytes(data.getvalue()) == Header(*size, "WEBP", False)


def test_webp_exif_behind_the_pixels_is_read() -> None:
    data = encoded("WEBP", 8)
    assert data[12:16] == b"VP8X"
    assert data.index(b"EXIF") > data.index(b"VP8 ")
    assert size_of(data) == (10, 24)


def test_png_exif_behind_the_pixels_is_not_read() -> None:
    data = encoded("PNG", 6)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert size_of(data) == (10, 24)
    assert size_of(moved) == (24, 10)


@pytest.mark.parametrize(
    ("width", "height", "bomb"),
    [(MAX_PIXELS, 1, None), (MAX_PIXELS + 1, 1, "decompression bomb"), (16_383, 16_383, "decompression bomb")],
)
def test_image_above_the_pixel_limit_is_a_bomb(width: int, height: int, bomb: str | None) -> None:
    message = Header(width, height, "PNG", False).bomb
    assert message == bomb or (message or "").startswith(f"{bomb}: {width}×{height} = ")


class FailingFile(io.BytesIO):
    """A file on a disk that fails behind its first bytes."""

    def __init__(self, data: bytes, number: int) -> None:
        super().__init__(data)
        self.number = number

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(self.number, "the disk")
        return super().read(size)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "ICO"])
def test_disk_error_is_not_reported_as_an_image_error(format_: str) -> None:
    with pytest.raises(OSError, match="the disk"):
        read_header(FailingFile(encoded(format_), errno.EIO))


def test_pointer_beyond_the_end_of_a_file_is_an_image_error(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    path.write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, 1 << 62))
    with path.open("rb") as file, pytest.raises(BadImageError, match="broken header: TIFF"):
        read_header(file)


def test_errors_are_one_line() -> None:
    with pytest.raises(BadImageError) as caught:
        read_bytes(b"P6 \n1\n2\n\n\n" + b"\n" * 99)
    assert "\n" not in str(caught.value)


# Fuzzing: bytes changed, cut and repeated; no file may end in anything but a header or a BadImageError

INTERESTING = [b"\0", b"\xff", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.one_of(st.binary(min_size=1, max_size=6), st.sampled_from(INTERESTING))), max_size=8
)


def changed(data: bytes, changes: list[tuple[float, bytes]], kept: float) -> bytes:
    """Places count double in the first 200 bytes, where headers lie."""
    mutable = bytearray(data)
    for number, (share, new) in enumerate(changes):
        at = int(share * (min(len(data), 200) if number % 2 else len(data)))
        mutable[at : at + len(new)] = new
    return bytes(mutable[: round(kept * len(mutable))])


OUTCOMES = ("a size", "empty", "broken header", "not an image", "unsupported format")


def outcome(data: bytes) -> str:
    """`a size`, the kind of the error, or what is wrong with either."""
    try:
        header = read_bytes(data)
    except BadImageError as error:
        text = str(error)
        return text if "\n" in text else text.partition(": ")[0]
    return (
        "a size" if min(header.width, header.height) > 0 and max(header.width, header.height) < 1 << 31 else str(header)
    )


@pytest.mark.parametrize("format_", [*PLAIN, "MPO"])
@given(changes=CHANGES, kept=st.one_of(st.just(1.0), st.floats(0, 1)), orientation=st.sampled_from([None, 6]))
@example(changes=[], kept=1.0, orientation=None)
@settings(max_examples=150, suppress_health_check=[HealthCheck.differing_executors])
def test_fuzzed_image_is_a_header_or_a_bad_image(
    format_: str, changes: list[tuple[float, bytes]], kept: float, orientation: int | None
) -> None:
    data = encoded(format_, orientation if format_ in ORIENTED else None)
    assert outcome(changed(data, changes, kept)) in OUTCOMES


def test_format_with_a_line_end_in_its_name_is_a_one_line_error() -> None:
    assert outcome(b"\0\0\0 ftypav\nf" + bytes(20)) == "unsupported format"


@given(data=st.binary(max_size=200))
@settings(max_examples=150)
def test_any_bytes_are_a_header_or_a_bad_image(data: bytes) -> None:
    assert outcome(data) in OUTCOMES
