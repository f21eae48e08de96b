"""Films without usable times: their frames are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.clip_frames import frames_between
from core.film_header import read_film_header
from core.films import FilmFile
from core.scene_cuts import find_cuts
from core.videos import probe
from tests.core.numbered_films import number_in, shown, write


@pytest.fixture(scope="module", params=[1.4, 1.411, 1.45, 3.0])
def joined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of ten seconds, whose clocks start at 1.4 s and at another time or the same. Picture k is the kth."""
    folder = tmp_path_factory.mktemp("parts")
    parts = [
        write(folder / f"{first}.ts", [clock + k / 10 for k in range(100)], first=first, bf="3")
        for first, clock in ((0, 1.4), (100, request.param))
    ]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_joined_parts_are_shown_one_after_the_other(joined: Path) -> None:
    """The numbers of the parts' packets fall between each other where the clocks differ by a little."""
    assert probe(joined).length == pytest.approx(20, abs=0.01)
    assert shown(joined, fps=1) == list(range(0, 200, 10))
    clip = frames_between(FilmFile("joined", str(joined)), 9.5, 10.5, count=True)
    assert [number_in(pixels) for _, pixels in clip] == list(range(95, 105))
    assert find_cuts(str(joined)).length == pytest.approx(20, abs=0.01)


def test_header_of_joined_parts_has_the_length_of_all(joined: Path) -> None:
    read = read_film_header(joined)
    assert (read.duration, read.frames, read.fps) == (pytest.approx(20, abs=0.01), 200, pytest.approx(10))
