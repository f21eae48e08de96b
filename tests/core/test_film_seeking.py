"""Seeking in films of any container: frames after a seek are those that a decoder shows that began at the start."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import pytest

from core.clip_frames import frames_between
from core.clip_writer import copy_clip
from core.containers import open_film
from core.film_seeking import decode_from
from core.films import FilmFile
from tests.core.numbered_films import number_in, picture, shown, write

SECONDS, FPS, GOP = 40, 5, 10.0
FILMS = ("a.mp4", "open-gop.mp4", "a.mkv", "a.ts", "a.flv", "mpeg2video.mpg", "mpeg4.ts")


def film(folder: Path, name: str) -> Path:
    """Picture k is shown from k / 5 s on; there is a key frame every 10 s."""
    path = folder / name
    if name.startswith("mpeg"):
        return constant_rate(path, codec=path.stem)
    options = {"x264-params": "open-gop=1"} if name.startswith("open-gop") else {}
    return write(path, [k / FPS for k in range(SECONDS * FPS)], gop=int(GOP * FPS), bf="3", **options)


def constant_rate(path: Path, codec: str) -> Path:
    """Of 25 pictures a second, as the codec's standard wants it: each is there five times."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"g": str(int(GOP * 25)), "sc_threshold": "1000000000"})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 64, 128, "yuv420p", 4_000_000
        for number in range(SECONDS * 25):
            frame = av.VideoFrame.from_ndarray(picture(number // 5), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.fixture(scope="module", params=FILMS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films"), request.param)


@pytest.mark.parametrize("start", [3.0, 10.0, 12.0, 19.8, 33.4])
def test_pieces_of_a_film_show_what_is_shown_there(path: Path, start: float) -> None:
    """Between key frames, at one, and just before one."""
    expected = [round(start * FPS) + k for k in range(10)]
    assert shown(path, start, start + 2, fps=FPS) == expected
    pictures = [
        number_in(pixels) for _, pixels in frames_between(FilmFile("film", str(path)), start, start + 2, count=False)
    ]
    assert sorted({*pictures}) == expected


@pytest.mark.parametrize("every", [4, 7, 11])
def test_frames_far_apart_are_those_on_display(path: Path, every: int) -> None:
    times = range(1, SECONDS - 1, every)
    assert shown(path, 1, SECONDS - 1, fps=1 / every) == [time * FPS for time in times]


def test_seek_begins_at_the_last_key_frame_or_the_one_before(path: Path) -> None:
    with open_film(FilmFile("film", str(path)), 1) as (container, stream):
        first = [at for at, _ in islice(decode_from(container, stream, 35.0), 1)]
    assert 35 - 2 * GOP <= first[0] <= 30.1


@pytest.mark.parametrize("start", [12.0, 19.8, 33.4])
def test_copy_begins_at_the_last_key_frame_of_any_film(path: Path, tmp_path: Path, start: float) -> None:
    """MPEG-TS and MPEG-PS lead to any packet. A copy of such a film does not begin with the film for that."""
    clip = copy_clip(FilmFile("film", str(path)), start, start + 2, tmp_path, "clip")
    assert clip.start == pytest.approx(start % GOP, abs=0.1)
    assert shown(clip.path, clip.start, clip.start + 2, fps=FPS) == [round(start * FPS) + k for k in range(10)]
