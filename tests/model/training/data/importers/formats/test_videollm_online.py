"""VideoLLM-online: times of turns, and stretches of frames between them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.training.data.importers.formats.videollm_online import SILENCE
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected

CHAT = [
    {"role": "user", "content": "What now?", "time": 3.5},
    {"role": "assistant", "content": "Lift the lid.", "time": 3.5},
    {"role": "assistant", "content": "Pour.", "time": 9.0},
]
LIVE = {"video_uid": "u", "conversation": CHAT}
FRAMES: list[dict[str, Any]] = [
    {"role": "user", "content": "What now?", "learn": False},
    {"role": "stream", "num_frames": 6, "learn": True},
    {"role": "assistant", "content": "Lift the lid.", "learn": True},
    {"role": "stream", "num_frames": 5, "learn": 3},
    {"role": "assistant", "content": "Pour.", "learn": False},
    {"role": "stream", "num_frames": 1, "learn": True},
]


def test_live_chat_comes_back_in_the_form_of_videollama3(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "videollm-online", [LIVE])
    assert imported.rendered("videollama3") == [{"stream": True, "video": "u.mp4", "conversation": CHAT}]


def test_stretches_of_frames_become_times(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "videollm-online", [LIVE | {"conversation": FRAMES}])
    (record,) = imported.records
    assert [(turn.role, turn.time, turn.learn) for turn in record.turns] == [
        ("user", 0.0, None),
        ("assistant", 3.0, True),
        ("assistant", 5.5, False),
    ]
    assert (record.media[0].end, record.transforms) == (6.0, ("times_from_num_frames",))
    times = [0.0, *(turn.time or 0.0 for turn in record.turns[1:]), record.media[0].end or 0.0]
    frames = [round((after - before) * 2) for before, after in pairwise(times)]
    assert frames == [turn["num_frames"] for turn in FRAMES if turn["role"] == "stream"]
    assert imported.report.notes.counted[SILENCE].count == 1


def test_rate_of_frames_is_a_setting(tmp_path: Path) -> None:
    entry = LIVE | {"conversation": FRAMES}
    (record,) = import_entries(tmp_path, "videollm-online", [entry], options={"fps": "4"}).records
    assert [turn.time for turn in record.turns] == [0.0, 1.5, 2.75]


def test_rate_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set fps=nan: give frames per second, such as 2"):
        import_entries(tmp_path, "videollm-online", [LIVE | {"conversation": FRAMES}], options={"fps": "nan"})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([CHAT[0], CHAT[2], CHAT[1]], "times go backwards"),
        ([{"role": "user", "content": "x"}], "no time in `time`: None"),
        ([CHAT[0]], "no answer: a stream in which nobody answers"),
        ([CHAT[0], CHAT[1] | {"content": " "}], "empty answer: turn 1"),
        ([FRAMES[0], {"role": "stream", "num_frames": 0}], "no number of frames in `num_frames`: 0"),
        ([FRAMES[0], {"role": "stream", "num_frames": True}], "no number of frames in `num_frames`: True"),
        ([FRAMES[1], FRAMES[2] | {"learn": 3}], "a number in `learn` of a turn"),
        ([{"role": "bot", "content": "x", "time": 1}], "unknown speaker: 'bot'"),
        ("x", "no conversation: 'x'"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, said: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "videollm-online", [{"video_uid": "u", "conversation": said}, LIVE])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
