"""COIN: steps in a region of interest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.object_files import answers, assert_rejected, import_object

STEPS = [{"id": 12, "segment": [6.0, 9.0], "label": "boil water"}, {"id": 13, "segment": [50.0, 60.5], "label": "pour"}]
FILM = {
    "class": "MakeTea",
    "recipe_type": 31,
    "duration": 71.4,
    "start": 4.0,
    "end": 60.0,
    "subset": "training",
    "video_url": "u",
    "annotation": STEPS,
}


def test_times_count_from_the_region(tmp_path: Path) -> None:
    imported = import_object(tmp_path, "coin", {"database": {"ID": FILM}})
    assert answers(imported) == ["2.0-5.0 s", "46.0-56.0 s", "2.0-5.0 s: boil water\n46.0-56.0 s: pour"]
    record = imported.records[0]
    film, span = record.media[0], record.turns[1].spans[0]
    assert (film.path, film.start, film.end, film.length) == ("ID.mp4", 4.0, 60.0, 56.0)
    assert [span.start + film.offset, span.end + film.offset] == STEPS[0]["segment"]
    assert (record.source.subset, record.source.split) == ("MakeTea", "training")
    assert record.transforms[0] == "times_from_region"
    entry = imported.rendered("videollama3")[0]
    assert (entry["start"], entry["end"], entry["times_from_start"]) == (4.0, 60.0, True)


@pytest.mark.parametrize(
    ("film", "reason", "left"),
    [
        (FILM | {"annotation": [*STEPS, {"segment": [1.0, 9.0], "label": "x"}]}, "span outside of the film: -3-5", 3),
        (FILM | {"annotation": [*STEPS, {"segment": [50.0, 70.0], "label": "x"}]}, "span outside of the film: 46-", 3),
        (FILM | {"end": None}, "no time in `end`", 0),
        (FILM | {"end": 3.0}, "the clip ends at 3 s, before it starts at 4 s", 0),
        ([1], "not an object: list", 0),
    ],
)
def test_broken_part_is_rejected_and_the_rest_imported(tmp_path: Path, film: Any, reason: str, left: int) -> None:
    imported = import_object(tmp_path, "coin", {"database": {"A": film, "B": FILM}})
    assert len(imported.records) == left + 3
    assert_rejected(imported, 1, reason)
