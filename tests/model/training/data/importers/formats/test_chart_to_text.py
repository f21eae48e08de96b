"""Chart-to-Text: folders of captions, titles, tables and images."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from tests.model.training import training_data
from tests.model.training.data.importers.importing import import_source

FILES = {
    "statista_dataset/dataset/captions/10.txt": "Sales fell.\n",
    "statista_dataset/dataset/captions/9.txt": " Sales rose .\n",
    "statista_dataset/dataset/titles/9.txt": "Sales of kettles",
    "statista_dataset/dataset/data/9.csv": "Year,Sales\n2019,4\n",
    "statista_dataset/dataset/multiColumn/captions/1.txt": "Two lines.",
    "pew_dataset/dataset/captions/1.txt": "",
    "pew_dataset/dataset/captions/2.txt": "Few agree.",
}


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "charts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "charts" / name).write_text(text)
    imgs = tmp_path / "charts" / "statista_dataset" / "dataset" / "imgs"
    imgs.mkdir()
    (imgs / "9.png").write_bytes(training_data.picture(0))
    return tmp_path / "charts"


def test_each_caption_becomes_a_record_of_its_chart(charts: Path) -> None:
    imported = import_source("chart-to-text", charts, media=charts)
    assert [(record.source.subset, record.turns[1].text) for record in imported.records] == [
        ("pew_dataset/dataset", "Few agree."),
        ("statista_dataset/dataset", "Sales rose ."),
        ("statista_dataset/dataset", "Sales fell."),
        ("statista_dataset/dataset/multiColumn", "Two lines."),
    ]
    titled = imported.records[1]
    assert titled.turns[0].text == "\nDescribe the chart. Its title: Sales of kettles"
    assert (titled.media[0].path, titled.media[0].present) == ("statista_dataset/dataset/imgs/9.png", True)
    assert imported.records[2].media[0].present is False
    assert imported.reasons == ["empty answer: turn 1"]
    assert imported.rejected[0]["file"] == "pew_dataset/dataset/captions/1.txt"


def test_make_table_gives_the_data(charts: Path) -> None:
    imported = import_source("chart-to-text", charts, options={"make": "table"})
    assert [record.turns[1].text for record in imported.records] == ["Year,Sales\n2019,4"]
    assert imported.reasons == ["no text in `table`: None"] * 4


def test_links_and_other_encodings_reject_their_chart_alone(charts: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (charts / "pew_dataset/dataset/captions/3.txt").symlink_to(tmp_path / "secret")
    (charts / "statista_dataset/dataset/data/10.csv").write_bytes("Größe,1".encode("latin-1"))
    imported = import_source("chart-to-text", charts)
    assert [record.source.original_id for record in imported.records] == ["2", "9", "1"]
    assert imported.reasons == [
        "empty answer: turn 1",
        "a link, or too large: 3.txt; links are not followed",
        "no UTF-8: 10.csv: invalid start byte",
    ]


def test_folder_without_captions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no captions/\*\.txt in it"):
        import_source("chart-to-text", tmp_path)
