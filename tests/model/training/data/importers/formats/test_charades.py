"""Charades-STA: lines of text, with lengths in a table or without."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import Imported, import_source

GOOD = "ABCDE 12.1 24.3##person opens a door."


def imported(folder: Path, *lines: str, durations: str = "") -> Imported:
    source = folder / "charades_sta_train.txt"
    source.write_text("\n".join(lines) + "\n")
    (folder / "durations.csv").write_text(durations)
    options = {"durations": str(folder / "durations.csv")} if durations else {}
    return import_source("charades", source, options=options)


def test_line_becomes_a_question_for_its_span(tmp_path: Path) -> None:
    (record,) = imported(tmp_path, GOOD).records
    assert '"person opens a door."' in record.turns[0].text
    assert record.turns[1].text == "12.1-24.3 s"
    span = record.turns[1].spans[0]
    assert f"{record.source.original_id} {span.start} {span.end}##person opens a door." == GOOD
    assert (record.media[0].path, record.media[0].duration) == ("ABCDE.mp4", None)
    assert (record.id, record.source.split, record.source.line) == ("set/ABCDE/1", "train", 1)


def test_end_behind_the_length_of_the_table_is_clipped(tmp_path: Path) -> None:
    result = imported(
        tmp_path, GOOD, GOOD.replace("ABCDE", "XYZ"), durations="id,subject,length\nABCDE,1,24.0\nXYZ,2,20\n"
    )
    (record,) = result.records
    assert (record.turns[1].text, record.media[0].duration) == ("12.1-24.0 s", 24.0)
    assert "end_clipped" in record.transforms
    assert result.reasons == ["span outside of the film: 12.1-24.3 s of 20 s"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ABCDE 12.1##x", "no line of Charades-STA: it is `ID start end##sentence`"),
        ("ABCDE nan 3.0##x", "no line of Charades-STA: it is `ID start end##sentence`"),
        ("ABCDE 5.0 3.0##x", "a span ends before it starts: 5-3 s"),
        ("ABCDE 5.0 5.0##x", "a span shorter than 0.1 s: 5-5 s"),
        ("ABCDE 1.0 5.0##", "an event without words: ''"),
    ],
)
def test_broken_line_is_rejected_and_the_rest_imported(tmp_path: Path, line: str, reason: str) -> None:
    result = imported(tmp_path, GOOD, line, GOOD)
    assert len(result.records) == 2
    assert [(row["line"], row["reason"]) for row in result.rejected] == [(2, reason)]


@pytest.mark.parametrize("table", ["id,size\nABCDE,3\n", "id,length\nABCDE,long\n"])
def test_table_that_is_none_is_named(tmp_path: Path, table: str) -> None:
    with pytest.raises(UserError, match=r"durations\.csv"):
        imported(tmp_path, GOOD, durations=table)
