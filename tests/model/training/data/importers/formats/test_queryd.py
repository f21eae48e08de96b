"""QuerYD: pickles are refused, JSON copies are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import import_source
from tests.model.training.data.importers.object_files import answers, assert_rejected

CAPTIONS = {"A": [["a", "man", "sits"], "he stands"], "B": ["x"]}
TIMES = {"A": [[0.5, 2.0], [3.0, 4.5]], "B": [[1.0, 2.0]]}


def folder(path: Path, captions: Any, times: Any) -> Path:
    source = path / "queryd"
    source.mkdir()
    (source / "raw_captions_combined_filtered.json").write_text(json.dumps(captions))
    (source / "times_captions_combined_filtered.json").write_text(json.dumps(times))
    return source


def test_files_side_by_side_are_joined_by_film(tmp_path: Path) -> None:
    imported = import_source("queryd", folder(tmp_path, CAPTIONS, TIMES), options={"make": "dense"})
    assert answers(imported) == ["0.5-2.0 s: a man sits\n3.0-4.5 s: he stands", "1.0-2.0 s: x"]
    assert [record.media[0].path for record in imported.records] == ["A.mp4", "B.mp4"]
    assert imported.report.notes.total == 2


def test_pickles_are_refused_with_advice(tmp_path: Path) -> None:
    source = tmp_path / "queryd"
    source.mkdir()
    for name in ("raw_captions", "times"):
        (source / f"{name}_combined_filtered.pkl").write_bytes(b"\x80\x04N.")
    for given in (source, source / "times_combined_filtered.pkl"):
        with pytest.raises(UserError, match="pickles can run code and are not read; load them where you trust them"):
            import_source("queryd", given)
        (given.parent / f"{given.name}-imported").rename(tmp_path / f"{given.name}-done")


@pytest.mark.parametrize(
    ("captions", "times", "reason", "line"),
    [
        (CAPTIONS | {"A": ["x"]}, TIMES, "captions and times do not match", 1),
        (CAPTIONS, TIMES | {"C": [[1.0, 2.0]]}, "captions and times do not match", 1),
        (CAPTIONS | {"C": ["x"]}, TIMES, "captions and times do not match", 3),
        (CAPTIONS, TIMES | {"B": [[2.0, 1.0]]}, "a span ends before it starts: 2-1 s", 2),
        (CAPTIONS | {"B": [""]}, TIMES, "an event without words", 2),
    ],
)
def test_broken_film_is_rejected_and_the_rest_imported(
    tmp_path: Path, captions: Any, times: Any, reason: str, line: int
) -> None:
    imported = import_source("queryd", folder(tmp_path, captions, times))
    assert imported.records
    assert_rejected(imported, line, reason)
