"""Folders of frames that annotations name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from model import Processor
from tests.model.training import training_data
from tests.model.training.lines import source, turns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 12 frames."""
    frames = tmp_path / "clip"
    frames.mkdir()
    for number in range(12):
        (frames / f"{number}.png").write_bytes(training_data.picture(number))
    return frames


@pytest.mark.parametrize(("frames_fps", "count"), [({}, 4), ({"frames_fps": 2}, 6), ({"frames_fps": 3, "fps": 3}, 12)])
def test_folder_of_frames_is_read_as_a_film(folder: Path, frames_fps: dict[str, Any], count: int) -> None:
    entry = {"video": "clip/", **frames_fps, "conversations": turns("<video>\nWhat?", "It.")}
    conversation = source(folder.parent, [entry]).sample(0).conversation
    assert conversation[0]["content"][0] == {"type": "video", "video": str(folder), **frames_fps}
    row = Processor.tiny()(conversation)
    assert row["grid_thw"][:, 0].tolist() == [count]


def test_stream_may_be_a_folder_of_frames(folder: Path) -> None:
    said = [{"role": "user", "content": "A", "time": 1}, {"role": "assistant", "content": "B", "time": 3}]
    entry = {"stream": True, "video": "clip", "start_time": 1, "end_time": 9, "frames_fps": 2, "conversation": said}
    conversation = source(folder.parent, [entry]).sample(0).conversation
    part = {"type": "video", "video": str(folder), "start": 1.0, "end": 9.0, "frames_fps": 2}
    assert conversation[0]["content"] == [part | {"until": 1.0}, "A", part | {"until": 3.0}]
    assert Processor.tiny()(conversation)["grid_thw"][:, 0].tolist() == [1, 2]


def test_frames_outside_of_the_media_are_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "a.png").write_bytes(training_data.picture(0))
    entries = [{"video": path, "conversations": turns("<video>?", "It.")} for path in ("clip", str(other), "linked")]
    (folder.parent / "linked").symlink_to(other)
    (folder / "12.png").symlink_to(other / "a.png")
    annotations = source(folder.parent, entries)
    for row in range(3):
        with pytest.raises(BadSampleError, match=r"lies outside of .*: put it there, or allow its folder"):
            annotations.sample(row)
    allowed = source(folder.parent, entries, roots=[str(other)])
    assert [allowed.sample(row).conversation[0]["content"][0]["video"] for row in range(3)] == [
        str(folder), str(other), str(other),
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "advice"), [("video", "notes.txt is no frame"), ("image", "a folder, not a file")])
def test_folder_that_is_no_film_is_refused(folder: Path, kind: str, advice: str) -> None:
    (folder / "notes.txt").touch()
    with pytest.raises(BadSampleError, match=f"line 1: .*clip: {advice}"):
        source(folder.parent, [{kind: "clip", "conversations": turns("What?", "It.")}]).sample(0)
