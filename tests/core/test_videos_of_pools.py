"""Films of a pool, clips of a film, and what decoding may take."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from core import containers
from core.errors import BadSampleError
from core.films import FilmFile
from core.videos import choose, decode, probe
from tests.films import blank, render

PICTURES = [blank(40 + 3 * number) for number in range(30)]


def shown(path: Path | FilmFile, fps: float, start: float) -> list[int]:
    """The shades of the sampled frames."""
    return decode(probe(path, fps=fps, start=start), lambda frame: round(float(frame.mean())))[0]


def test_film_of_a_pool_is_read_like_its_path(tmp_path: Path) -> None:
    """A local file, and a window of another file, with and without usable times."""
    for ending in ("mp4", "avi", "ts"):
        path = render(tmp_path / f"a.{ending}", PICTURES)
        data = path.read_bytes()
        expected = shown(path, fps=5, start=1)
        assert shown(FilmFile("local", path=str(path), length=len(data)), fps=5, start=1) == expected
        assert shown(FilmFile("window", open=lambda data=data: io.BytesIO(data)), fps=5, start=1) == expected


def test_times_are_chosen_again_without_reading(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mp4", PICTURES)
    video = probe(path)
    assert choose(video, fps=4, max_frames=3, start=1) == probe(path, fps=4, max_frames=3, start=1)
    path.unlink()
    assert choose(video, fps=5, start=2, end=2.5).times == (2, 2.2, 2.4)
    with pytest.raises(BadSampleError, match=r"behind the end: start 3 s, the film ends at 3\.0 s"):
        choose(video, start=3)


def test_larger_frames_are_scaled_down_on_demand(tmp_path: Path) -> None:
    video = probe(render(tmp_path / "a.mp4", PICTURES), fps=1)
    assert [frame.shape for frame in decode(video, np.copy, side=48)[0]] == [(32, 48, 3)] * 3
    assert [frame.shape for frame in decode(video, np.copy, side=96)[0]] == [(64, 96, 3)] * 3


@pytest.mark.parametrize(("start", "end"), [(50.0, 50.5), (50.0, 59.0), (19.0, 24.0)])
def test_clip_behind_the_break_of_a_film_is_an_error(tmp_path: Path, start: float, end: float) -> None:
    """Even if a tenth of the film's length is not yet missing, or a frame before the break could stand for it."""
    whole = render(tmp_path / "whole.mkv", [*PICTURES] * 10, stamps=range(0, 600, 2)).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(BadSampleError, match=r"cut\.mkv: (breaks off: at|no frame can be decoded)"):
        decode(probe(path, fps=2, start=start, end=end), np.copy)


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the header, and where a film grows on the way."""
    small = render(tmp_path / "small.h264", [blank(90)] * 30)
    large = render(tmp_path / "large.h264", [blank(90, 128, 192)] * 30)
    grown = tmp_path / "grown.h264"
    grown.write_bytes(small.read_bytes() + large.read_bytes())
    assert {frame.shape for frame in decode(probe(grown, fps=2), np.copy)[0]} == {(64, 96, 3), (128, 192, 3)}
    monkeypatch.setattr(containers, "MAX_PIXELS", 10_000)
    with pytest.raises(BadSampleError, match=r"too large: frames of 192 × 128 pixels, more than 10,000"):
        probe(large)
    with pytest.raises(BadSampleError, match=r"grown\.h264: breaks off: at [23]\.\d s"):
        decode(probe(grown, fps=2), np.copy)
