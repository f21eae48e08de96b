from __future__ import annotations

from pathlib import Path

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_source


def test_tabs_in_a_file_named_csv_are_read(tmp_path: Path) -> None:
    lines = ["url\tcaption", "https://example.org/a.jpg\tA dog, a cat.", "cc/b.jpg\tA kettle.", "c.jpg\t ", "d.jpg"]
    (tmp_path / "cc3m.csv").write_text("\n".join(lines) + "\n")
    assert sniff(tmp_path / "cc3m.csv").name == "imagebind-llm"
    imported = import_source("imagebind-llm", tmp_path / "cc3m.csv", media=tmp_path)
    assert [(each.media[0].path, each.source.url, each.turns[1].text) for each in imported.records] == [
        ("https://example.org/a.jpg", "https://example.org/a.jpg", "A dog, a cat."),
        ("cc/b.jpg", "", "A kettle."),
    ]
    assert [each.media[0].present for each in imported.records] == [False, False]
    assert imported.reasons == ["empty caption: the row has no words", "no CSV: 1 fields under 2 columns"]
