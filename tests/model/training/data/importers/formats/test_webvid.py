from __future__ import annotations

from pathlib import Path

import pytest

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source

HEADER = "videoid,contentUrl,duration,page_dir,name\n"
LINE = '1001,https://example.org/1001.mp4,PT00H01M12S,000101_000150,"Chef, in a kitchen, chops."\n'


def test_lines_become_captions_of_films(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text(HEADER + LINE)
    assert sniff(tmp_path / "0.csv").name == "webvid"
    (record,) = import_source("webvid", tmp_path / "0.csv").records
    assert [turn.text for turn in record.turns] == ["Describe the video.", "Chef, in a kitchen, chops."]
    (film,) = record.media
    assert (film.path, film.duration) == ("000101_000150/1001.mp4", 72.0)
    assert (record.source.original_id, record.source.url) == ("1001", "https://example.org/1001.mp4")
    assert record.transforms == ("question_added",)


def test_columns_that_video_llama_reads_suffice(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("videoid,name,page_dir\n7,A dog runs.,a_b\n")
    imported = import_source("webvid", tmp_path / "0.csv", options={"question": "What is shown?"})
    assert imported.records[0].turns[0].text == "What is shown?"
    assert (imported.records[0].media[0].path, imported.records[0].media[0].duration) == ("a_b/7.mp4", None)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("1,,,a, \n", "empty caption: "),
        (",,,a,A dog.\n", "a medium without a path: ''"),
        ("1,2\n", "no CSV: 2 fields under 5 columns"),
    ],
)
def test_broken_line_is_rejected_and_the_rest_imported(tmp_path: Path, broken: str, reason: str) -> None:
    (tmp_path / "0.csv").write_text(HEADER + LINE + broken + LINE)
    imported = import_source("webvid", tmp_path / "0.csv")
    assert len(imported.records) == 2
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 3
