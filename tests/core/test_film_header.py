"""The header of a film: known answers for each container, and films that are damaged or say impossible things."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from core.containers import MAX_PIXELS, open_film
from core.errors import BadSampleError
from core.file_window import FileWindow
from core.film_header import FilmHeader, read_film_header
from core.films import FilmFile, FilmLostError
from core.videos import decode, probe
from tests.film_files import FORMATS, changed, film
from tests.model.clips import real, turn, without_frames, write

QUARTER = (0, 1, -1, 0)


def header(data: bytes, path: Path) -> FilmHeader:
    path.write_bytes(data)
    return read_film_header(path)


def within(path: Path, folder: Path) -> FilmFile:
    """The same film between other bytes of a file."""
    data = path.read_bytes()
    (folder / "packed").write_bytes(b"x" * 1000 + data + b"y" * 1000)

    def opened() -> BinaryIO:
        return cast(BinaryIO, FileWindow(open(folder / "packed", "rb"), 1000, len(data)))

    return FilmFile("packed", open=opened, length=len(data))


@pytest.mark.parametrize("ending", FORMATS)
def test_each_container_gives_length_rate_and_size(tmp_path: Path, ending: str) -> None:
    path = film(tmp_path / f"a.{ending}")
    read = read_film_header(path)
    assert (read.width, read.height, read.has_audio, read.variable_rate) == (96, 64, False, False)
    assert (read.fps, read.frames) == (25, pytest.approx(50, abs=1))
    assert read.duration == pytest.approx(2, abs=0.05)
    assert read_film_header(within(path, tmp_path)) == read
    data = path.read_bytes()
    assert read_film_header(FilmFile("cell", open=partial(io.BytesIO, data), length=len(data))) == read


@pytest.mark.parametrize("ending", ["mp4", "avi", "ts", "mkv", "h264"])
def test_film_within_a_file_is_decoded_as_the_file_is(tmp_path: Path, ending: str) -> None:
    path = film(tmp_path / f"a.{ending}")
    frames = [decode(probe(source, fps=5), lambda frame: frame.tobytes()) for source in (path, within(path, tmp_path))]
    assert frames[0] == frames[1]
    assert len(frames[0][0]) == 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bigbuckbunny", (1280, 720, 5.28, 25.0, 132, "h264", True)),
        ("carphone", (176, 144, 4.004, 29.97, 120, "h264", False)),
        ("traffic", (704, 576, 11.667, 30.0, 350, "h264", False)),
    ],
)
def test_real_films_give_known_answers(name: str, expected: tuple[object, ...]) -> None:
    read = read_film_header(real(name))
    rounded = (round(read.duration, 3), round(read.fps or 0, 2))
    assert (read.width, read.height, *rounded, read.frames, read.codec, read.has_audio) == expected


@pytest.mark.parametrize(
    ("matrix", "size"), [(QUARTER, (64, 96)), ((0, -1, 1, 0), (64, 96)), ((-1, 0, 0, -1), (96, 64))]
)
def test_turned_film_has_the_displayed_size(
    tmp_path: Path, matrix: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    path = turn(write(tmp_path / "phone.mp4", [k / 10 for k in range(20)]), matrix)
    read = read_film_header(path)
    assert (read.width, read.height) == size == (probe(path).width, probe(path).height)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("variable", [False, True])
def test_variable_rate_is_seen(tmp_path: Path, ending: str, variable: bool) -> None:
    stamps, at = [], 0.0
    for number in range(60):
        stamps.append(at)
        at += 0.2 if variable and number % 7 == 3 else 1 / 30
    assert read_film_header(write(tmp_path / f"a.{ending}", stamps)).variable_rate is variable


def test_sound_is_seen(tmp_path: Path) -> None:
    assert read_film_header(film(tmp_path / "a.mp4", sound=True)).has_audio


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mkv", {"live": "1"}), ("a.mp4", {"movflags": "frag_keyframe+empty_moov+skip_trailer"}), ("a.h264", {})],
)
def test_length_that_the_header_lacks_is_read(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = film(tmp_path / name, frames=75, **options)
    with open_film(path) as (container, stream):
        assert name == "a.mp4" or not (stream.duration or container.duration)
    assert (read_film_header(path).duration, read_film_header(path).frames) == (3, 75)


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+skip_trailer", "frag_keyframe+empty_moov"])
def test_frames_of_all_fragments_are_counted(tmp_path: Path, flags: str) -> None:
    """The header of a film that is only partly in fragments has the number of the frames before them."""
    path = film(tmp_path / "a.mp4", frames=75, movflags=flags)
    assert (read_film_header(path).frames, read_film_header(path).duration) == (75, 3)
    assert read_film_header(within(path, tmp_path)).frames == 75


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
def test_film_of_one_frame_is_a_film(tmp_path: Path, ending: str) -> None:
    read = read_film_header(film(tmp_path / f"a.{ending}", frames=1))
    assert (read.frames, read.variable_rate if ending != "avi" else None) == (1, None)
    assert read.duration == pytest.approx(0.04, abs=0.04)


@pytest.mark.parametrize("name", ["a.mp4", "front.mp4", "a.mkv", "a.avi", "a.flv"])
def test_film_that_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    front = {"movflags": "faststart"} if name == "front.mp4" else {}
    whole = film(tmp_path / name, frames=500, **front).read_bytes()
    assert header(whole, tmp_path / name).duration == pytest.approx(20, abs=0.1)
    for share in (0.0, 0.02, 0.3, 0.6, 0.7):
        with pytest.raises(
            BadSampleError, match=r"cut off: |cannot be read as a video|without frames|unknown codec"
        ) as error:
            header(whole[: int(len(whole) * share)], tmp_path / name)
        assert "\n" not in str(error.value), share


def test_stream_that_is_cut_off_is_as_long_as_the_rest(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.ts", frames=500).read_bytes()
    assert header(whole[: len(whole) // 2], tmp_path / "a.ts").duration == pytest.approx(10, abs=1)


def _avi_header(frames: int, rate: int = 25) -> Callable[[bytes], bytes]:
    return lambda data: changed(changed(data, b"strh", 24, "<II", 1, rate), b"strh", 36, "<I", frames)


@pytest.mark.parametrize(
    ("ending", "harm", "message"),
    [
        ("avi", _avi_header(50, rate=1_000_000), "impossible rate: 1e"),
        ("avi", _avi_header(2**31 - 1), "cut off: ends at 2.0 s of 85899345.9 s"),
        ("mp4", lambda data: data[: data.index(b"moov") - 4], "cannot be read as a video: Invalid data"),
        ("mp4", lambda data: b"<!DOCTYPE html><html>404</html>" * 20, "cannot be read as a video: Invalid data"),
        ("mp4", lambda data: b"", "cannot be read as a video: Invalid data"),
        ("mp4", lambda data: data.replace(b"avc1", b"zzzz"), "unknown codec"),
        ("ts", lambda data: bytes(100_000), "cannot be read as a video: Invalid data"),
        ("y4m", lambda data: data.replace(b"W96 H64", b"W16000 H16000"), r"too large: frames of 16000 × 16000"),
        ("y4m", lambda data: data.replace(b"W96 H64", b"W100000 H100000"), "cannot be read as a video"),
        (
            "mp4",
            lambda data: changed(data.replace(b"avc1", b"raw "), b"raw ", 24, ">HH", 65535, 65535),
            "cannot be read",
        ),
    ],
    ids=["rate", "frames", "no_index", "html", "empty", "codec", "zeros", "large", "absurd", "absurd_mp4"],
)
def test_damaged_film_is_a_one_line_error(
    tmp_path: Path, ending: str, harm: Callable[[bytes], bytes], message: str
) -> None:
    data = harm(film(tmp_path / f"a.{ending}").read_bytes())
    with pytest.raises(BadSampleError, match=message) as error:
        header(data, tmp_path / f"a.{ending}")
    assert "\n" not in str(error.value)
    with pytest.raises(BadSampleError, match=message):
        read_film_header(FilmFile("cell", open=partial(io.BytesIO, data), length=len(data)))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_sound_alone_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(BadSampleError, match=r"no video stream: give a video file|a video without frames"):
        read_film_header(without_frames(tmp_path / f"a.{ending}"))


def test_size_in_the_header_does_not_count_but_the_frame(tmp_path: Path) -> None:
    data = film(tmp_path / "a.avi").read_bytes()
    assert header(changed(data, b"strf", 8, "<ii", 100_000, 100_000), tmp_path / "a.avi").width == 96


def test_wide_film_below_the_bound_is_read(tmp_path: Path) -> None:
    wide = (8192, 16)
    assert read_film_header(film(tmp_path / "a.mkv", frames=1, size=wide)).width == 8192
    assert MAX_PIXELS == 8192 * 4352


class _Disk(io.BytesIO):
    """A disk that fails after some bytes."""

    left = 3000

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise OSError(5, "Input/output error")
        return data


def test_error_of_the_disk_is_not_one_of_the_film(tmp_path: Path) -> None:
    data = film(tmp_path / "a.ts").read_bytes()
    with pytest.raises(FilmLostError, match=r"cell: unreadable: .*Input/output error") as error:
        read_film_header(FilmFile("cell", open=lambda: _Disk(data)))
    assert isinstance(error.value.__cause__, OSError)


def test_film_of_another_length_than_indexed_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    for source in (FilmFile("a", path=str(path), length=7), FilmFile("a", open=lambda: open(path, "rb"), length=7)):
        with pytest.raises(BadSampleError, match=r"changed: has .* bytes now, had 7; index the pool again"):
            read_film_header(source)
