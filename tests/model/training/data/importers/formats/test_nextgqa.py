from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import import_source


def test_spans_of_questions_are_grounding(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("video_id,question,qid\n4010,why did he sit,7\n4010,why did he stand,8\n")
    location = {"7": [[1.0, 2.5], [7, 9]], "8": [], "9": [[1, 2]], "x": 1}
    films = {"4010": {"duration": 30, "location": location}, "4011": {"duration": 30}}
    (tmp_path / "gsub.json").write_text(json.dumps(films))
    imported = import_source("nextgqa", tmp_path / "gsub.json", options={"questions": str(tmp_path / "val.csv")})
    (record,) = imported.records
    assert record.turns[0].text.endswith("why did he sit")
    assert record.turns[1].text == "1.0-2.5 s, 7.0-9.0 s"
    assert [(span.start, span.end) for span in record.turns[1].spans] == [(1.0, 2.5), (7.0, 9.0)]
    assert (record.source.original_id, record.media[0].duration) == ("4010_7", 30.0)
    assert imported.reasons == [
        "no spans: the list is empty",
        "no such question in the CSV: 4010 9",
        "no such question in the CSV: 4010 x",
        "no spans: `location` is missing",
    ]


def test_spans_without_questions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gsub.json").write_text(json.dumps({"4010": {"duration": 30, "location": {"7": [[1, 2]]}}}))
    with pytest.raises(UserError, match="--set questions=FILE"):
        import_source("nextgqa", tmp_path / "gsub.json")
