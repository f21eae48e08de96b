from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.records import Choices
from model.training.data.importers.formats.nextqa import NO_TEXT
from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source

HEADER = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
LINE = "4010,300,640,480,how many dogs are there,2,7,DC,one,two,None,nan,\n"


def test_none_and_nan_are_words_of_an_option(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text(HEADER + LINE)
    assert sniff(tmp_path / "val.csv").name == "nextqa"
    (record,) = import_source("nextqa", tmp_path / "val.csv").records
    assert record.choices == Choices(options=("one", "two", "None", "nan", ""), answer_index=2)
    assert record.turns[1].text == "(C) None"
    assert (record.aspect, record.source.original_id, record.media[0].path) == ("DC", "4010_7", "4010")


def test_cells_that_another_reader_emptied_are_noted(tmp_path: Path) -> None:
    row = {"video_id": "4010", "question": "How many?", "answer": 1, "qid": 7, "type": "DC"}
    options = {f"a{number}": None if number == 1 else str(number) for number in range(5)}
    pq.write_table(pa.Table.from_pylist([row | options, row | options]), tmp_path / "val.parquet")
    imported = import_source("nextqa", tmp_path / "val.parquet")
    assert imported.records[0].turns[1].text == "(B) None"
    assert imported.report.notes.counted[NO_TEXT].count == 2


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (LINE.replace(",2,7,", ",5,7,"), "an answer outside of its options: 5 of 5"),
        (LINE.replace(",2,7,", ",two,7,"), "no index of an option: 'two'"),
        (LINE.replace("4010", ""), "a medium without a path: ''"),
        ("4010,300\n", "no CSV: 2 fields under 13 columns"),
    ],
)
def test_broken_line_is_rejected_and_the_rest_imported(tmp_path: Path, broken: str, reason: str) -> None:
    (tmp_path / "val.csv").write_text(HEADER + LINE + broken + LINE)
    imported = import_source("nextqa", tmp_path / "val.csv")
    assert len(imported.records) == 2
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
