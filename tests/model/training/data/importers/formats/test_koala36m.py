from __future__ import annotations

from pathlib import Path

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source

HEADER = "videoID,url,timestamp,caption,clarity\n"
LINE = "x_1,u,\"['0:00:01.5', '0:00:04']\",A man sits.,0.9\n"


def test_line_is_a_clip_and_a_broken_one_is_rejected(tmp_path: Path) -> None:
    broken = "x_2,u,\"[['0:00:01', '0:00:04']]\",A man sits.,0.9\n" + "x_3,u,0-4,A man.,0.9\n"
    (tmp_path / "koala.csv").write_text(HEADER + LINE + broken + LINE)
    imported = import_source("koala36m", tmp_path / "koala.csv")
    assert [(each.media[0].path, each.media[0].start, each.media[0].end) for each in imported.records] == [
        ("x_1", 1.5, 4.0)
    ] * 2
    assert imported.records[0].turns[1].text == "A man sits."
    assert imported.reasons == [
        "no clip: give the clock times of its start and end",
        "no list in `timestamp`: '0-4'",
    ]
    assert sniff(tmp_path / "koala.csv").name == "koala36m"
