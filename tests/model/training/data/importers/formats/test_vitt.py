"""ViTT: milliseconds, and starts only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import Imported, import_entries
from tests.model.training.data.importers.object_files import answers, assert_rejected

TAGS = [{"timestamp": 1345, "tag": "Opening"}, {"timestamp": 12345, "tag": "Mixing"}]
FILM = {"id": "wAbc", "annotations": TAGS}


def imported(folder: Path, entries: list[Any], durations: str = "", ids: str = "") -> Imported:
    options = {}
    for name, text in (("durations", durations), ("ids", ids)):
        if text:
            (folder / f"{name}.csv").write_text(text)
            options[name] = str(folder / f"{name}.csv")
    return import_entries(folder, "vitt", entries, options=options)


def test_tags_last_to_the_next_one_and_the_end(tmp_path: Path) -> None:
    result = imported(tmp_path, [FILM], "id,duration\nwAbc,60\n", "id,video\nwAbc,youtube1\n")
    assert answers(result) == ["1.3-12.3 s", "12.3-60.0 s", "1.3-12.3 s: Opening\n12.3-60.0 s: Mixing"]
    spans = [(span.start, span.end) for span in result.records[2].turns[1].spans]
    assert spans == [(1.345, 12.345), (12.345, 60.0)]
    assert [round(start * 1000) for start, _ in spans] == [tag["timestamp"] for tag in TAGS]
    assert result.records[0].media[0].path == "youtube1.mp4"
    assert result.records[0].transforms[:2] == ("seconds_from_milliseconds", "ends_from_next_starts")


def test_last_tag_of_a_film_of_unknown_length_is_rejected(tmp_path: Path) -> None:
    result = imported(tmp_path, [FILM])
    assert answers(result) == ["1.3-12.3 s", "1.3-12.3 s: Opening"]
    assert_rejected(result, 1, "the last tag has no end: give --set durations=FILE")


def test_two_annotations_of_a_film_are_two_rows(tmp_path: Path) -> None:
    result = imported(tmp_path, [FILM, FILM], "id,duration\nwAbc,60\n")
    assert len({record.id for record in result.records}) == 6


@pytest.mark.parametrize(
    ("entry", "reason", "left"),
    [
        (FILM | {"annotations": TAGS[::-1]}, "times go backwards", 0),
        (FILM | {"annotations": [{"timestamp": None, "tag": "x"}]}, "no time in `timestamp`", 0),
        (FILM | {"annotations": 7}, "no conversation: 7", 0),
        (FILM | {"annotations": [*TAGS, {"timestamp": 50000, "tag": " "}]}, "an event without words", 3),
        (FILM | {"id": "other"}, "no film for an id: other is not in", 0),
        ({"annotations": TAGS}, "no text in `id`", 0),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, entry: Any, reason: str, left: int) -> None:
    result = imported(tmp_path, [entry, FILM], "id,length\nwAbc,60\n", "id,video\nwAbc,w\n")
    assert len(result.records) == left + 3
    assert_rejected(result, 1, reason)


def test_start_behind_the_end_rejects_both_tags_beside_it(tmp_path: Path) -> None:
    late = FILM | {"annotations": [*TAGS, {"timestamp": 70000, "tag": "x"}]}
    result = imported(tmp_path, [late], "id,length\nwAbc,60\n")
    assert answers(result) == ["1.3-12.3 s", "1.3-12.3 s: Opening"]
    assert result.reasons == [
        "span outside of the film: 12.345-70 s of 60 s",
        "a span ends before it starts: 70-60 s of 60 s",
    ]
