from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries

FILM = "046001_046050/1012345678.mp4"


def entry(*pairs: tuple[str, str], **others: Any) -> dict[str, Any]:
    return {"video": FILM, "QA": [{"q": question, "a": answer} for question, answer in pairs], **others}


TWO = entry(("What does the cook do?", "She chops an onion."), ("With what?", "A <knife>."))


def test_later_questions_follow_in_the_published_order(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "videochat", [TWO]).records
    assert [(turn.role, turn.text) for turn in record.turns] == [
        ("user", "What does the cook do?"),
        ("assistant", "She chops an onion."),
        ("user", "With what?"),
        ("assistant", "A <knife>."),
    ]
    assert [part.media for turn in record.turns for part in turn.parts if part.media] == ["v0"]
    assert record.turns[0].parts[0].media == "v0"
    assert (record.media[0].path, record.media[0].present) == (FILM, None)


def test_withdrawn_films_are_a_state(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "videochat", [TWO], media=tmp_path)
    assert imported.records[0].media[0].present is False
    assert imported.report.media["missing"] == 1
    assert not imported.rejected


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (entry(), "no conversation: `QA` is empty"),
        ({"video": FILM}, "no conversation: None"),
        ({"video": FILM, "QA": {"q": "a"}}, "no conversation: {'q': 'a'}"),
        ({"video": FILM, "QA": [{"q": "What?"}]}, "no text in `a`: None"),
        ({"video": FILM, "QA": [{"q": 7, "a": "It."}]}, "no text in `q`: 7"),
        ({"QA": TWO["QA"]}, "a medium without a path: None"),
        (entry(("What?", " ")), "empty answer: turn 1"),
        ([TWO], "not an object: list"),
        ('{"video"', "no JSON: "),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "videochat", [TWO, broken, TWO])
    assert len(imported.records) == 2
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 2
