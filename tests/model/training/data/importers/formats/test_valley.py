from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.data.importers.importing import import_entries


def entry(video: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": "Describe it.\n<video>"}, {"from": "gpt", "value": "A man sits."}]
    return {"video": video, "conversations": turns}


def test_webvid_rows_come_back_as_they_were(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "valley", [entry("000101_000150/1001.mp4")])
    assert imported.rendered("llava") == [entry("000101_000150/1001.mp4")]
    assert imported.records[0].media[0].start is None
    assert not imported.records[0].transforms


@pytest.mark.parametrize(
    ("films", "path", "is_cut"),
    [("", "vatex/Ab-_efghijk_000010_000020.mp4", True), ("whole", "vatex/Ab-_efghijk.mp4", False)],
)
def test_names_of_vatex_say_the_clip(tmp_path: Path, films: str, path: str, is_cut: bool) -> None:
    rows = [entry("vatex/Ab-_efghijk_000010_000020.mp4")]
    (record,) = import_entries(tmp_path, "valley", rows, options={"films": films}).records
    (film,) = record.media
    assert (film.path, film.start, film.end, film.is_cut, film.length) == (path, 10.0, 20.0, is_cut, 10.0)
    assert record.transforms == ("clip_of_name",)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (entry("Ab-_efghijk_000020_000010"), "the clip ends at 10 s, before it starts at 20 s"),
        ({"video": "a.mp4", "conversations": []}, "no conversation: "),
        (entry("a.mp4") | {"video": 7}, "a medium without a path: 7"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "valley", [entry("a.mp4"), broken, entry("b.mp4")])
    assert len(imported.records) == 2
    assert imported.reasons[0].startswith(reason)
