from __future__ import annotations

from pathlib import Path

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source

HEADER = "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds\n"
LINE = 'a_1_0to152.mp4,"A man, in red, sits.",5.1,3.2,0.99,pan,152,29.97,5.07\n'


def test_length_and_rate_are_kept_and_a_broken_line_rejected(tmp_path: Path) -> None:
    (tmp_path / "openvid.csv").write_text(HEADER + LINE + LINE.replace("29.97", "fast") + LINE)
    imported = import_source("openvid", tmp_path / "openvid.csv")
    (film,) = imported.records[0].media
    assert (film.path, film.duration, film.fps, film.start) == ("a_1_0to152.mp4", 5.07, 29.97, None)
    assert [record.turns[1].text for record in imported.records] == ["A man, in red, sits."] * 2
    assert imported.reasons == ["no time in `fps`: 'fast'"]
    assert sniff(tmp_path / "openvid.csv").name == "openvid"
