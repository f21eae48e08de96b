"""AVTime: percents with both ends included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries
from tests.model.training.data.importers.object_files import answers, assert_rejected

EVENTS = [
    {"start_pct": 0, "end_pct": 12, "caption": "A door opens."},
    {"start_pct": 13, "end_pct": 99, "caption": "Rain."},
]


def row(answer: Any, **others: Any) -> dict[str, Any]:
    said = [("system", "Answer in percents."), ("user", "<video>\nWhich events?"), ("assistant", json.dumps(answer))]
    messages = [{"role": role, "content": text} for role, text in said]
    return {"videos": ["x.mp4"], "messages": messages, "duration": 50.0, **others}


def test_percents_become_seconds_with_the_end_included(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "avtime", [row({"events": EVENTS})])
    assert answers(imported)[2] == "0.0-6.5 s: A door opens.\n6.5-50.0 s: Rain."
    spans = imported.records[2].turns[1].spans
    percents = [(round(span.start * 2), round(span.end * 2) - 1) for span in spans]
    assert percents == [(event["start_pct"], event["end_pct"]) for event in EVENTS]
    assert imported.records[2].transforms[:2] == ("seconds_from_percent", "prompt_replaced")


def test_length_comes_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "lengths.csv").write_text("video,duration\nx.mp4,100\n")
    entry = row({"events": EVENTS})
    del entry["duration"]
    options = {"durations": str(tmp_path / "lengths.csv"), "make": "dense"}
    imported = import_entries(tmp_path, "avtime", [entry], options=options)
    assert answers(imported) == ["0.0-13.0 s: A door opens.\n13.0-100.0 s: Rain."]


@pytest.mark.parametrize(
    ("broken", "reason", "left"),
    [
        (row("x"), "no conversation: None", 0),
        (row({"events": EVENTS}, messages=[{"role": "assistant", "content": "{"}]), "an answer that is no JSON", 0),
        (row({"events": [*EVENTS, {"start_pct": 3, "end_pct": 100, "caption": "x"}]}), "no percents from 0 to 99", 3),
        (row({"events": [*EVENTS, {"start_pct": 30, "end_pct": 12, "caption": "x"}]}), "a span ends before it", 3),
        (row({"events": [*EVENTS, {"start_pct": 3, "end_pct": 4}]}), "an event without words: None", 3),
        (row({"events": EVENTS}, videos=["a", "b"]), "not one film: ['a', 'b']", 0),
        (
            {key: value for key, value in row({"events": EVENTS}).items() if key != "duration"},
            "percents of a film of",
            0,
        ),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str, left: int) -> None:
    imported = import_entries(tmp_path, "avtime", [broken, row({"events": EVENTS})])
    assert len(imported.records) == left + 3
    assert_rejected(imported, 1, reason)
