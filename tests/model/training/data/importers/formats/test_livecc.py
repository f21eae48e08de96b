"""LiveCC: words with times, and a last line that is an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.livecc import NO_PLACE
from model.training.data.importers.readers import LINE_INDEX
from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import assert_rejected

WORDS = [[30.2, 30.6, "And"], [30.6, 31.0, "now"], [31.0, 31.4, "he"], [58.0, 59.6, "scores"]]


def line(words: Any = WORDS, **others: Any) -> list[dict[str, Any]]:
    film = {"type": "video", "video": "YT.mp4", "video_start": 30.0, "video_end": 59.9}
    asked = {"type": "text", "text": "Commentate.", "previous": "the match begins", "title": "T", "category": "Sports"}
    return [
        {"role": "user", "content": [film | others, asked]},
        {"role": "assistant", "content": [{"type": "text_stream", "text_stream": words}]},
    ]


def test_words_are_told_by_the_second(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "livecc", [line(), line()])
    record = imported.records[0]
    assert [(turn.time, turn.text) for turn in record.turns] == [
        (0.0, "Commentate.\nthe match begins"),
        (1.0, "And now"),
        (2.0, "he"),
        (29.9, "scores"),
    ]
    assert (record.media[0].start, record.media[0].end) == (30.0, 59.9)
    assert imported.report.notes.counted[NO_PLACE].count == 2


def test_words_and_times_come_back(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "livecc", [line()]).records
    words = [word for turn in record.turns[1:] for word in turn.text.split()]
    spans = [span for turn in record.turns for span in turn.spans]
    offset = record.media[0].offset
    times = [[round(time + offset, 6) for time in (span.start, span.end)] for span in spans]
    assert [[*pair, word] for pair, word in zip(times, words, strict=True)] == WORDS


def test_index_at_the_end_is_no_row_but_a_last_line_is(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "livecc", [line(), line(), [0, 1234]])
    assert len(imported.records) == 2
    assert not imported.rejected
    assert imported.report.notes.counted[LINE_INDEX].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (line([]), "no words in `text_stream`: []"),
        (line([[30.0, "x", "y"]]), "no word with start and end"),
        (line([[29.0, 30.5, "y"]]), "a word before the clip, or reversed"),
        (line([[32.0, 31.0, "y"]]), "a word before the clip, or reversed"),
        (line([[80.0, 81.0, "y"]]), "span outside of the film: turn 1 has 50-51 s of 29.9 s"),
        (line(video_start=None), "no time in `video_start`: None"),
        (line(video_end=20.0), "the clip ends at 20 s, before it starts at 30 s"),
        (line()[:1], "not one question and one answer"),
        (line()[::-1], "not one question and one answer"),
        ({"a": 1}, "no conversation: {'a': 1}"),
    ],
)
def test_broken_line_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "livecc", [broken, line()])
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
