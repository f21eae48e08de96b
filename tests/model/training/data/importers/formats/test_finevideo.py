from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import Imported, import_source


def activity(start: str, end: str, text: str = "He stirs.") -> dict[str, Any]:
    return {"description": text, "timestamp": {"start_timestamp": start, "end_timestamp": end}}


def film(*activities: dict[str, Any], **others: Any) -> dict[str, Any]:
    content = {
        "scenes": [{"title": "Kitchen", "activities": list(activities)}],
        "qAndA": [{"question": "Who stirs?", "answer": "A cook."}],
    }
    told = {"original_video_filename": "x.mp4", "duration_seconds": 80, "content_metadata": content, **others}
    return {"mp4": b"film", "json": told}


ONE = film(activity("00:01:02.500", "00:01:09.000"), activity("00:00:00.000", "00:01:02.500", "He chops."))


def imported(folder: Path, *rows: dict[str, Any]) -> Imported:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "train.parquet")
    return import_source("finevideo", folder / "train.parquet")


def test_activities_and_questions_become_records(tmp_path: Path) -> None:
    dense, asked = imported(tmp_path, ONE).records
    assert dense.turns[1].text == "0.0-62.5 s: He chops.\n62.5-69.0 s: He stirs."
    assert [(span.start, span.end) for span in dense.turns[1].spans] == [(0.0, 62.5), (62.5, 69.0)]
    assert (dense.media[0].path, dense.media[0].duration) == ("x.mp4", 80.0)
    assert [turn.text for turn in asked.turns] == ["Who stirs?", "A cook."]
    assert "seconds_from_clock" in dense.transforms


@pytest.mark.parametrize(
    ("row", "reason", "records"),
    [
        (film(activity("0:00:09", "0:00:02")), "span 9.0-2.0 s", 1),
        (film(activity("soon", "0:00:02")), "no clock time: 'soon'", 1),
        (film(activity("0:00:00", "0:01:59")), "span outside of the film", 1),
        (film(activity("0:00:00", "0:00:02", "")), "empty caption", 1),
        (film(activity("0:00:00", "0:00:02"), original_video_filename=None), "a medium without a path", 0),
        ({"mp4": b"", "json": None}, "no description", 0),
    ],
)
def test_broken_film_is_rejected_and_the_rest_imported(
    tmp_path: Path, row: dict[str, Any], reason: str, records: int
) -> None:
    result = imported(tmp_path, ONE, row, ONE)
    assert len(result.records) == 4 + records
    assert [each.startswith(reason) for each in result.reasons] == [True]


def test_parquet_without_descriptions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="json"):
        imported(tmp_path, {"mp4": b"film"})
