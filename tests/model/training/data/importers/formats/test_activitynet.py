"""ActivityNet Captions: overlapping spans, ends behind the film, sentences with blanks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import Imported, import_source

FILM = {"duration": 64.2, "timestamps": [[0.5, 21.3], [18.0, 64.9]], "sentences": [" A man sits.", " He stands."]}


def imported(folder: Path, films: dict[str, Any], name: str = "val_2.json", **options: str) -> Imported:
    source = folder / name
    source.write_text(json.dumps(films))
    return import_source("activitynet", source, options=options)


def test_spans_and_sentences_become_questions_and_a_caption(tmp_path: Path) -> None:
    records = imported(tmp_path, {"v_abc": FILM}).records
    assert [record.task for record in records] == ["grounding", "grounding", "dense_caption"]
    assert [record.turns[1].text for record in records] == [
        "0.5-21.3 s",
        "18.0-64.2 s",
        "0.5-21.3 s: A man sits.\n18.0-64.2 s: He stands.",
    ]
    assert ['"A man sits."' in records[0].turns[0].text, '"He stands."' in records[1].turns[0].text] == [True, True]
    assert [(span.start, span.end) for span in records[2].turns[1].spans] == [(0.5, 21.3), (18.0, 64.2)]
    assert ["end_clipped" in record.transforms for record in records] == [False, True, True]
    assert {(record.media[0].path, record.media[0].duration) for record in records} == {("v_abc.mp4", 64.2)}
    assert {(record.source.subset, record.source.split) for record in records} == {("val_2", "validation")}
    assert len({record.id for record in records}) == 3


def test_stream_is_rendered_in_the_form_of_videollama3(tmp_path: Path) -> None:
    (entry,) = imported(tmp_path, {"v_abc": FILM}, make="stream").rendered("videollama3")
    assert (entry["stream"], entry["video"]) == (True, "v_abc.mp4")
    assert [turn["time"] for turn in entry["conversation"]] == [0.0, 21.3, 64.2]
    assert [turn["content"] for turn in entry["conversation"][1:]] == ["A man sits.", "He stands."]


def test_path_has_the_fields_of_the_row(tmp_path: Path) -> None:
    records = imported(tmp_path, {"v_abc": FILM}, path="films/{id}.mkv", make="dense").records
    assert records[0].media[0].path == "films/v_abc.mkv"


@pytest.mark.parametrize(
    ("film", "reason", "left"),
    [
        (FILM | {"sentences": ["x"]}, "timestamps and sentences do not match", 0),
        (FILM | {"duration": None}, "no time in `duration`: None", 0),
        (FILM | {"timestamps": [[0.5, 21.3], [18.0, 70.0]]}, "span outside of the film: 18-70 s of 64.2 s", 2),
        (FILM | {"timestamps": [[0.5, 21.3], [18.0, 3.0]]}, "a span ends before it starts: 18-3 s", 2),
        (FILM | {"timestamps": [[0.5, 21.3], [18.0, 18.0]]}, "a span shorter than 0.1 s: 18-18 s", 2),
        (FILM | {"sentences": [" ", "x"]}, "an event without words: ' '", 2),
        ([1], "not an object: list", 0),
    ],
)
def test_broken_part_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str, left: int) -> None:
    result = imported(tmp_path, {"v_a": film, "v_b": FILM})
    assert len(result.records) == left + 3
    assert [(row["line"], row["reason"][: len(reason)]) for row in result.rejected] == [(1, reason)]


def test_unknown_field_of_a_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no field \{uid\}; there are \{id\}"):
        imported(tmp_path, {"v_a": FILM}, path="{uid}.mp4")
