"""VideoLLaMA3's own form: clips, rates, folders of frames and streams come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries

TURNS = [{"from": "human", "value": "<video>\nWhen?"}, {"from": "gpt", "value": "1.0-2.5 s"}]
SAID = [
    {"role": "system", "content": "Speak."},
    {"role": "user", "content": "Tell me when <video> it opens.", "time": 12.1},
    {"role": "assistant", "content": "Now.", "time": 18.7},
    {"role": "assistant", "content": "Shut."},
]
STREAM = {"stream": True, "video": "v.mp4", "start_time": 10.3, "end_time": 70.0, "conversation": SAID}


@pytest.mark.parametrize(
    "entry",
    [
        {"video": "v.mp4", "fps": 2, "max_frames": 64, "start": 1.0, "end": 8.0, "conversations": TURNS},
        {"video": "v.mp4", "start": 1.0, "end": 8.0, "times_from_start": True, "conversations": TURNS},
        {"video": "frames", "fps": 1, "frames_fps": 3, "conversations": TURNS},
        {
            "image": "a.png",
            "references": ["a", "b"],
            "conversations": [{"from": "human", "value": "<image>"}, TURNS[1]],
        },
        {"conversations": [{"from": "human", "value": "What?"}, TURNS[1]]},
        {"conversations": [{"from": "system", "value": "Short."}, {"from": "human", "value": "What?"}, TURNS[1]]},
        STREAM,
        {"stream": True, "video": "v.mp4", "fps": 2, "conversation": SAID},
    ],
)
def test_entry_comes_back_as_it_was(tmp_path: Path, entry: dict[str, Any]) -> None:
    assert import_entries(tmp_path, "videollama3", [entry]).rendered("videollama3") == [entry]


def test_one_reference_is_a_list_of_one(tmp_path: Path) -> None:
    entry = {"video": "v.mp4", "references": "It opens.", "conversations": TURNS}
    assert import_entries(tmp_path, "videollama3", [entry]).records[0].references == ("It opens.",)


def test_times_of_a_stream_count_from_the_clip(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "videollama3", [STREAM]).records
    assert [turn.time for turn in record.turns] == [None, 1.8, 8.4, None]
    assert (record.media[0].start, record.media[0].end) == (10.3, 70.0)
    assert record.is_stream


def test_plain_start_keeps_the_times_of_the_film(tmp_path: Path) -> None:
    entries = [
        {"video": "v.mp4", "start": 1.0, **more, "conversations": TURNS} for more in ({}, {"times_from_start": True})
    ]
    film, clip = (record.media[0] for record in import_entries(tmp_path, "videollama3", entries).records)
    assert (film.clock, film.offset, clip.clock, clip.offset) == ("film", 0.0, "clip", 1.0)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({**STREAM, "start_time": 15.0}, "a time before the stream: 12.1 s"),
        ({**STREAM, "start_time": "soon"}, "no time in `start_time`: 'soon'"),
        ({**STREAM, "conversation": [{"role": "assistant", "content": "Now."}]}, "a stream without times"),
        ({**STREAM, "conversation": [SAID[2], SAID[1]]}, "times go backwards"),
        ({**STREAM, "conversation": [SAID[1]]}, "no answer"),
        ({"video": "v.mp4", "start": 8.0, "end": 2.0, "conversations": TURNS}, "the clip ends at 2 s"),
        ({"conversations": TURNS, "video": "v.mp4", "references": [1]}, "no texts in `references`"),
        ({"video": "v.mp4", "fps": 0, "conversations": TURNS}, "Input should be greater than 0"),
        ({"video": ["1.jpg", "2.jpg"], "conversations": TURNS}, "a film as a list of its frames"),
        ({"conversations": TURNS}, "placeholders do not match: more <video> than videos"),
        ({"video": "v.mp4", "conversations": TURNS, "rejected": "Later."}, "`rejected`: "),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "videollama3", [broken, STREAM])
    assert imported.rendered("videollama3") == [STREAM]
    assert imported.reasons[0].startswith(reason)
