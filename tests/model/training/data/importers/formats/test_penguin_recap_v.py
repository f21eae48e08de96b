from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.penguin_recap_v import NO_TIMES, UNKNOWN_GRANULARITY
from tests.model.training.data.importers.importing import import_entries

DENSE = "0.0-2.5 s: A man sits.\n2.5-7.0 s: He stands."


def entry(film: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<video>\nDescribe it."}, {"from": "gpt", "value": answer}]
    return {"video": [f"./Set/{film}.mp4"], "conversations": turns}


THREE = [entry("a", DENSE), entry("a", "A man sits and stands."), entry("a", "A man.")]


def test_three_rows_of_a_film_are_three_granularities(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "penguin-recap-v", [*THREE, entry("b", "A dog."), *THREE])
    assert [record.aspect for record in imported.records] == [
        *("dense", "paragraph", "summary"),
        "summary",
        *("dense", "paragraph", "summary"),
    ]
    assert [record.task for record in imported.records[:2]] == ["dense_caption", "caption"]
    assert [(span.start, span.end) for span in imported.records[0].turns[-1].spans] == [(0.0, 2.5), (2.5, 7.0)]
    assert imported.records[0].turns[-1].text == DENSE
    assert imported.records[0].media[0].path == "./Set/a.mp4"
    assert not imported.report.notes.counted.keys() & {NO_TIMES, UNKNOWN_GRANULARITY}


def test_two_rows_of_a_film_have_no_known_granularity(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "penguin-recap-v", [*THREE[:2], entry("b", "A dog.")])
    assert [record.aspect for record in imported.records] == ["", "", "summary"]
    assert imported.report.notes.counted[UNKNOWN_GRANULARITY].count == 2


def test_dense_caption_without_times_is_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "penguin-recap-v", [entry("a", "A man."), *THREE[1:]])
    assert imported.report.notes.counted[NO_TIMES].count == 1


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("broken", ["{", json.dumps({"video": ["./Set/a.mp4"]})])
def test_broken_row_leaves_the_others_their_place(tmp_path: Path, place: int, broken: str) -> None:
    rows = [*THREE, *THREE[:place], broken, *THREE[place + 1 :]]
    imported = import_entries(tmp_path, "penguin-recap-v", rows)
    names = ["dense", "paragraph", "summary"]
    assert [record.aspect for record in imported.records[:3]] == names
    rest = [record.aspect for record in imported.records[3:]]
    assert rest == names[:place] + names[place + 1 :]
    assert len(imported.rejected) == 1
    assert imported.rejected[0]["line"] == 4 + place
