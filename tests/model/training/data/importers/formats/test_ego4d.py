from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.ego4d import BROKEN, SHORT
from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import Imported, import_source


def narration(time: Any, text: Any, annotator: str = "a") -> dict[str, Any]:
    return {"time": time, "text": text, "_annotation_uid": annotator}


NARRATIONS = [
    narration(130.5, "#C C opens a door"),
    narration(3.25, "#O A man X sits #Unsure"),
    narration(4.0, "#C sits", "b"),
    narration(5.0, "#C C #unsure lifts a lid", "b"),
]


def imported(folder: Path, films: dict[str, Any], **options: str) -> Imported:
    (folder / "all.json").write_text(json.dumps({"version": "1", "videos": films}))
    return import_source("ego4d", folder / "all.json", options=options)


def test_each_annotator_gives_a_stream_in_order_of_time(tmp_path: Path) -> None:
    result = imported(tmp_path, {"u1": {"narrations": NARRATIONS}}, ending=".mp4")
    first, second = result.records
    assert [(turn.role, turn.time, turn.text) for turn in first.turns] == [
        ("user", 0.0, "Narrate what happens."),
        ("assistant", 3.25, "A man X sits"),
        ("assistant", 130.5, "C opens a door"),
    ]
    assert [turn.text for turn in second.turns[1:]] == ["C lifts a lid"]
    assert first.transforms == ("strip_narration_marks",)
    assert result.report.notes.counted[SHORT].count == 1
    assert (first.source.original_id, first.media[0].path) == ("u1/a", "u1.mp4")
    stream = result.rendered("videollama3")[0]
    assert [turn["time"] for turn in stream["conversation"]] == [0.0, 3.25, 130.5]
    assert sniff(tmp_path / "all.json").name == "ego4d"


def test_windows_are_clips_with_their_own_clock(tmp_path: Path) -> None:
    result = imported(tmp_path, {"u1": {"narrations": NARRATIONS[:2]}}, window="120")
    films = [record.media[0] for record in result.records]
    assert sorted((film.start, film.end) for film in films) == [(0.0, 4.25), (120.0, 131.5)]
    late = next(record for record in result.records if record.media[0].start == 120.0)
    assert late.turns[1].time == 10.5


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        ({}, "no conversation: None"),
        ({"narrations": []}, "no record in it"),
        ({"narrations": [narration(1.0, "#C")]}, "no record in it"),
        ([], "not an object: list"),
    ],
)
def test_broken_film_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str) -> None:
    result = imported(tmp_path, {"u1": {"narrations": NARRATIONS}, "u2": film})
    assert len(result.records) == 2
    assert result.reasons == [reason]
    assert result.rejected[0]["key"] == "u2"


@pytest.mark.parametrize("broken", [narration(None, "#C C sits"), narration(-1, "#C C sits"), narration(1.0, None)])
def test_broken_narration_is_counted(tmp_path: Path, broken: dict[str, Any]) -> None:
    result = imported(tmp_path, {"u1": {"narrations": [*NARRATIONS, broken]}})
    assert len(result.records) == 2
    assert result.report.notes.counted[BROKEN].count == 1
