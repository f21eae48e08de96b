"""Momentor: templates to fill, and thresholds by type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.formats.momentor import NO_THRESHOLD
from tests.model.training.data.importers.object_files import assert_rejected, import_object


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


ONE: dict[str, Any] = {
    "id": 5,
    "conversations": turns("<video>\nWhat happens in {moment}?", "At {click} he sits, until {end_moment}."),
    "variables": {"moment": [12.0, 15.5], "click": 13, "end_moment": [15.0, 15.5]},
    "match_score": 0.2,
}


def test_templates_are_filled_with_seconds(tmp_path: Path) -> None:
    (record,) = import_object(tmp_path, "momentor", {"vid": {"segment caption": [ONE]}}).records
    assert [turn.text for turn in record.turns] == [
        "\nWhat happens in 12.0-15.5 s?",
        "At 13.0 s he sits, until 15.0-15.5 s.",
    ]
    assert [[(span.start, span.end) for span in turn.spans] for turn in record.turns] == [
        [(12.0, 15.5)],
        [(15.0, 15.5)],
    ]
    assert (record.media[0].path, record.source.subset, record.source.original_id) == (
        "vid.mp4",
        "segment caption",
        "vid/5",
    )
    assert record.transforms == ("templates_filled",)


def test_thresholds_are_settings(tmp_path: Path) -> None:
    films = {"vid": {"qa": [ONE], "Instance-QA": [ONE], "new type": [ONE]}}
    imported = import_object(tmp_path, "momentor", films, thresholds="qa=0.3")
    assert [record.source.subset for record in imported.records] == ["Instance-QA", "new type"]
    assert imported.reasons == ["no score, or one below the threshold of its type: 0.2 of 0.3, qa"]
    assert imported.report.notes.counted[NO_THRESHOLD].count == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ONE | {"variables": {}}, "a template without a value: {moment}"),
        (ONE | {"variables": ONE["variables"] | {"moment": [15.5, 12.0]}}, "a span ends before it starts"),
        (ONE | {"match_score": 0.17}, "no score, or one below the threshold of its type: 0.17 of 0.177"),
        (ONE | {"match_score": None}, "no score, or one below the threshold of its type: None of 0.177"),
        (ONE | {"conversations": 7}, "no conversation: 7"),
    ],
)
def test_broken_part_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_object(tmp_path, "momentor", {"vid": {"qa": [broken, ONE]}})
    assert len(imported.records) == 1
    assert_rejected(imported, 1, reason)
