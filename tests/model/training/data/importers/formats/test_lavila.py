from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from model.training.data.importers.formats.lavila import SCORES
from tests.model.training.data.importers.importing import import_entries, import_source

ONE = ["u1", 310.5, 312.0, "#C C lifts a lid"]


def test_each_text_of_a_clip_is_a_record(tmp_path: Path) -> None:
    rows = [ONE, [*ONE[:3], ["#C C lifts a lid", "C opens a pot"]], [*ONE[:3], ["#O X sits"], [0.7]]]
    imported = import_entries(tmp_path, "lavila", rows)
    texts = [record.turns[1].text for record in imported.records]
    assert texts == ["C lifts a lid", "C lifts a lid", "C opens a pot", "X sits"]
    (film,) = imported.records[0].media
    assert (film.path, film.start, film.end) == ("u1", 310.5, 312.0)
    assert imported.records[0].transforms == ("question_added", "strip_narration_marks")
    assert imported.report.notes.counted[SCORES].count == 1


def test_chunks_are_files_with_a_clock_of_their_own(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "lavila", [ONE, ["u1", 299.0, 301.0, "C sits"]], options={"chunks": "300"})
    (film,) = imported.records[0].media
    assert (film.path, film.start, film.end) == ("u1.mp4/300.mp4", 10.5, 12.0)
    assert imported.reasons == ["a clip over the border of two chunks: 299-301 s in chunks of 300 s"]


def test_pickles_are_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "train.pkl").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"a pickle can run code and is not read: .* write JSON lines"):
        import_source("lavila", tmp_path / "train.pkl")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (["u1", 1.0, 2.0], "no narration: "),
        ({"uid": "u1"}, "no narration: "),
        (["u1", "x", 2.0, "C sits"], "no time in `start`: 'x'"),
        (["u1", 3.0, 2.0, "C sits"], "the clip ends at 2 s, before it starts at 3 s"),
        (["u1", 1.0, 1.0, "C sits"], "the clip ends at 1 s, before it starts at 1 s"),
        (["u1", 1.0, 2.0, "#C"], "empty caption: "),
        (["u1", 1.0, 2.0, [7]], "no text in `text`: 7"),
        ([7, 1.0, 2.0, "C sits"], "a medium without a path: 7"),
    ],
)
def test_broken_row_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "lavila", [ONE, broken, ONE])
    assert len(imported.records) == 2
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
