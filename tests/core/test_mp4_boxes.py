"""MP4 files of some kilobytes that would fill the memory."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from core.containers import open_container
from core.errors import BadSampleError
from core.mp4_boxes import check_boxes
from tests.film_files import FORMATS, film, many_edits, many_fragment_samples, many_samples
from tests.model.clips import real

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


@pytest.mark.parametrize("ending", FORMATS)
def test_films_pass(tmp_path: Path, ending: str) -> None:
    check_boxes(io.BytesIO(film(tmp_path / f"a.{ending}", sound=ending in ("mp4", "mkv")).read_bytes()))


def test_fragments_and_real_films_pass(tmp_path: Path) -> None:
    check_boxes(io.BytesIO(film(tmp_path / "a.mp4", **FRAGMENTS).read_bytes()))
    for name in ("bigbuckbunny", "bikes", "carphone"):
        check_boxes(io.BytesIO(real(name).read_bytes()))


@pytest.mark.parametrize("large", [False, True], ids=["size32", "size64"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("samples", r"impossible index: 80,000,000 samples in a file of"),
        ("fragment", r"impossible index: 80,000,000 samples in a file of"),
        ("listed", r"impossible index: 80,000,000 samples of a fragment, listed in 96 bytes"),
        ("edits", r"impossible index: 20,000 edits of a track, more than 1,000"),
        ("packed", r"compressed header: its size is unknown"),
    ],
)
def test_file_that_claims_too_much_is_refused(tmp_path: Path, kind: str, message: str, large: bool) -> None:
    whole = film(tmp_path / "a.mp4").read_bytes()
    pieces = film(tmp_path / "f.mp4", **FRAGMENTS).read_bytes()
    listed = bytearray(pieces)
    struct.pack_into(">I", listed, listed.index(b"trun") + 8, 80_000_000)
    data = {
        "samples": lambda: many_samples(whole),
        "fragment": lambda: many_fragment_samples(pieces),
        "listed": lambda: bytes(listed),
        "edits": lambda: many_edits(whole),
        "packed": lambda: whole.replace(b"mvhd", b"cmov"),
    }[kind]()
    if large:  # the same behind a box with a length of 64 bits
        data = struct.pack(">I4sQ", 1, b"free", 32) + bytes(16) + data
    path = tmp_path / "b.mp4"
    path.write_bytes(data)
    with pytest.raises(BadSampleError, match=message):
        open_container(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\0" * 4000, b"\xff" * 4000, struct.pack(">I4s", 3, b"moov")])
def test_bytes_that_are_no_boxes_pass(data: bytes) -> None:
    check_boxes(io.BytesIO(data))


def test_boxes_within_boxes_end(tmp_path: Path) -> None:
    deep = b""
    for _ in range(3000):
        deep = struct.pack(">I4s", 8 + len(deep), b"moov") + deep
    check_boxes(io.BytesIO(deep))
