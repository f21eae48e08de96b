"""Scans of a JPEG are counted without decoding it, and too many of them are an error."""

from __future__ import annotations

import io
import random
import struct
import time

import pytest
from PIL import Image, ImageFile

from core.image_header import BadImageError
from core.images import decode
from core.jpeg import MAX_SCANS, count_scans, scan_error
from model.images import read_image

ENDING = b"\xff\xd9"


def encoded(image: Image.Image, **how: object) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", **how)
    return data.getvalue()


def noise(side: int = 64) -> Image.Image:
    return Image.effect_noise((side, side), 80).convert("RGB")


def progressive(side: int, scans: int) -> bytes:
    """A whole progressive JPEG of many scans: its last one, a refinement, again and again."""
    data = encoded(Image.new("L", (side, side), 128), progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start : -len(ENDING)] * (scans - data.count(b"\xff\xda") + 1) + ENDING


def test_jpeg_of_3000_scans_is_an_error_at_once() -> None:
    data = progressive(2000, 3000)
    assert len(data) < 200_000
    begin = time.perf_counter()
    assert scan_error(data, 2000 * 2000) == "too many scans: 3,000 > 500, which would take minutes to decode"
    assert time.perf_counter() - begin < 1
    small = progressive(64, 3000)
    with Image.open(io.BytesIO(small)) as image:
        image.load()  # the file is whole: a decoder goes through all of its scans


def test_stages_and_model_refuse_many_scans_before_decoding() -> None:
    data = progressive(2000, 3000)
    begin = time.perf_counter()
    with pytest.raises(BadImageError, match=r"^too many scans: 3,000 > 500"):
        decode(data)
    with pytest.raises(ValueError, match=r"^cannot read image: too many scans: 3,000 > 500"):
        read_image(data)
    assert time.perf_counter() - begin < 5  # decoded, it takes minutes


def test_scan_limit_falls_with_the_size_of_the_image() -> None:
    data = progressive(64, 60)
    assert scan_error(data, 64 * 64) is None
    assert scan_error(data, 178_956_970) == "too many scans: 60 > 55, which would take minutes to decode"


@pytest.mark.parametrize(("how", "scans"), [({}, 1), ({"progressive": True}, 10), ({"restart_marker_blocks": 1}, 1)])
def test_scans_of_common_encoders_are_counted_and_pass(how: dict[str, object], scans: int) -> None:
    data = encoded(noise(), **how)
    assert count_scans(data) == scans
    assert scan_error(data, 178_956_970) is None


def test_markers_that_start_no_scan_are_not_counted() -> None:
    preview = encoded(noise(32), progressive=True)
    data = encoded(noise(), exif=b"Exif\0\0" + preview * 3)
    assert data.count(b"\xff\xda") > 30
    assert count_scans(data) == 1, "those of previews inside of a segment are skipped"
    assert count_scans(data + preview) == 1, "what lies behind the end belongs to another image, as in MPO"
    assert count_scans(data + b"\xff\xda" * MAX_SCANS) == 1


def test_fill_bytes_before_a_marker_are_legal() -> None:
    data = progressive(64, 700).replace(b"\xff\xda", b"\xff\xff\xff\xda")
    assert count_scans(data) == 700
    assert scan_error(data, 64 * 64)


def test_any_bytes_have_a_scan_count() -> None:
    whole = progressive(64, 600)
    dice = random.Random(0)
    for _ in range(300):
        broken = bytearray(whole[: dice.randrange(len(whole))])
        for _ in range(dice.randrange(5)):
            if broken:
                broken[dice.randrange(len(broken))] = dice.randrange(256)
        assert 0 <= count_scans(bytes(broken)) <= 600
    begin = time.perf_counter()
    assert count_scans(b"\xff\xd8" + b"\xff" * (16 << 20)) == 0
    assert time.perf_counter() - begin < 5, "the search is linear"
    for data in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\x89PNG\r\n\x1a\n"):
        assert count_scans(data) <= 1
    assert count_scans(b"\xff\xd8" + struct.pack(">BBH", 0xFF, 0xE0, 0) * 1000) == 0, "a length of zero"


def test_truncated_file_counts_its_remaining_scans() -> None:
    data = progressive(64, 3000)
    assert count_scans(data[: len(data) // 2]) in range(1400, 1510)
    assert scan_error(data[: len(data) // 2], 64 * 64), "Pillow may be set to load cut files; it would take as long"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
