"""YouCook2: whole seconds, films in folders by recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.object_files import answers, assert_rejected, import_object

STEPS = [{"id": 0, "segment": [90, 102], "sentence": "chop it"}, {"id": 1, "segment": [110, 120], "sentence": "fry it"}]
FILM = {"duration": 300.1, "subset": "training", "recipe_type": "101", "video_url": "u", "annotations": STEPS}


def test_steps_become_questions_and_a_caption(tmp_path: Path) -> None:
    imported = import_object(tmp_path, "youcook2", {"database": {"ID": FILM}})
    assert answers(imported) == ["90.0-102.0 s", "110.0-120.0 s", "90.0-102.0 s: chop it\n110.0-120.0 s: fry it"]
    record = imported.records[0]
    assert (record.media[0].path, record.media[0].duration) == ("101/ID.mp4", 300.1)
    assert (record.source.split, record.source.url, record.source.original_id) == ("training", "u", "ID")
    assert '"chop it"' in record.turns[0].text


@pytest.mark.parametrize(
    ("film", "reason", "left"),
    [
        (FILM | {"annotations": None}, "no conversation: None", 0),
        (FILM | {"duration": "long"}, "no time in `duration`", 0),
        (FILM | {"annotations": [*STEPS, {"segment": [5, 3], "sentence": "x"}]}, "a span ends before it starts", 3),
        (FILM | {"annotations": [*STEPS, {"segment": [5, 500], "sentence": "x"}]}, "span outside of the film", 3),
        (FILM | {"annotations": [*STEPS, {"segment": [5, 9]}]}, "an event without words: None", 3),
        (7, "not an object: int", 0),
    ],
)
def test_broken_part_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str, left: int) -> None:
    imported = import_object(tmp_path, "youcook2", {"database": {"A": film, "B": FILM}})
    assert len(imported.records) == left + 3
    assert_rejected(imported, 1, reason)
