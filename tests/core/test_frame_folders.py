"""A folder of frames is read as a film of that rate."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import BadSampleError
from core.frame_folders import list_frames
from core.videos import Frame, decode, probe


def frame(number: int, height: int = 20, width: int = 30) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), number, np.uint8))


def shade(pixels: Frame) -> int:
    return int(pixels[0, 0, 0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 frames, whose names sort as numbers, not as texts."""
    for number in range(12):
        frame(number).save(tmp_path / f"frame{number}.png")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    return tmp_path


def test_frames_are_in_natural_order(folder: Path) -> None:
    assert [Path(path).name for path in list_frames(folder)] == [f"frame{number}.png" for number in range(12)]


@pytest.mark.parametrize(
    ("fps", "frames_fps", "sampling", "shown"),
    [
        (1, 3, "exact", [0, 3, 6, 9]),
        (1, 3, "original", [2, 5, 8, 11]),
        (1, 2, "exact", [0, 2, 4, 6, 8, 10]),
        (3, 3, "exact", list(range(12))),
        (2, 3, "exact", [0, 1, 3, 4, 6, 7, 9, 10]),
        (1, 0.5, "exact", [number // 2 for number in range(24)]),
        (1, 24, "exact", [0]),
        (1, 24, "original", [11]),
    ],
)
def test_frames_of_a_folder_are_those_of_a_film(
    folder: Path, fps: float, frames_fps: float, sampling: str, shown: list[int]
) -> None:
    video = probe(folder, fps, frames_fps=frames_fps, sampling=sampling)  # type: ignore[arg-type]
    assert (video.height, video.width) == (20, 30)
    assert decode(video, shade) == (shown, tuple(k / fps for k in range(len(shown))))


def test_folder_has_three_frames_per_second_if_none_are_told(folder: Path) -> None:
    assert decode(probe(folder, start=1, end=3), shade) == ([3, 6], (1, 2))
    assert decode(probe(folder, max_frames=2), shade) == ([0, 9], (0, 3))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("notes.txt", "notes.txt is no frame: leave only"),
        ("inner", "inner is no frame"),
        ("pipe.png", "pipe.png is no"),
    ],
)
def test_folder_with_anything_else_is_refused(folder: Path, name: str, advice: str) -> None:
    {"notes.txt": Path.touch, "inner": Path.mkdir, "pipe.png": os.mkfifo}[name](folder / name)  # type: ignore[operator]
    with pytest.raises(BadSampleError, match=advice):
        probe(folder)


def test_folder_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSampleError, match="a folder without frames: give one with images"):
        probe(tmp_path)


def test_frame_of_another_size_is_refused(folder: Path) -> None:
    frame(5, 20, 31).save(folder / "frame6.png")
    with pytest.raises(BadSampleError, match=r"frame6\.png: 31 x 20 pixels, the first frame has 30 x 20: resize"):
        decode(probe(folder), shade)
    assert decode(probe(folder, end=2), shade)[0] == [0, 3]


def test_damaged_frame_is_refused(folder: Path) -> None:
    (folder / "frame0.png").write_bytes(b"no image")
    with pytest.raises(BadSampleError, match=r"frame0\.png: cannot be read as a frame: "):
        probe(folder)


@pytest.mark.parametrize("frames_fps", [0, -1, "3", float("nan"), True, 1e9])
def test_invalid_rate_of_a_folder_is_refused(folder: Path, frames_fps: float) -> None:
    with pytest.raises(BadSampleError, match=r"frames_fps .*: give numbers, fps above 0"):
        probe(folder, frames_fps=frames_fps)
