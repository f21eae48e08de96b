"""pdfa and idl: tars of documents, page by page; boxes are left, top, width and height as fractions."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.training.data.importers.formats.documents import FLAT
from tests.model.training.data.importers.importing import Imported, import_source

LINES = {"text": ["A title", " ", "two words"], "bbox": [[0.1, 0.1, 0.25, 0.3], [0, 0, 0, 0], [0, 0.5, 1, 0.25]]}
WORDS = {"text": ["A", "title"], "bbox": [[0.1, 0.1, 0.05, 0.3], [0.2, 0.1, 0.15, 0.3]], "score": [1, 1]}
PAGE = {"lines": LINES, "words": WORDS | {"line_pos": [0, 0]}, "images_bbox": [], "images_bbox_no_text_overlap": []}
FLAT_PAGE = {"text": ["STOP"], "bbox": [[0.1, 0.1, 0.25, 0.3]], "poly": [[]], "score": [0.9]}


def tiff() -> bytes:
    pages = [Image.new("1", (40, 20), number) for number in (0, 1)]
    data = io.BytesIO()
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:])
    return data.getvalue()


def tar(folder: Path, format_: str, members: dict[str, Any], **options: str) -> Imported:
    source = folder / "pdfa-eng-train-0000.tar"
    with tarfile.open(source, "w") as archive:
        for name, value in members.items():
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return import_source(format_, source, options=options)


def test_each_page_becomes_its_lines_in_order(tmp_path: Path) -> None:
    imported = tar(tmp_path, "pdfa", {"0001.pdf": b"%PDF", "0001.json": {"pages": [PAGE, {"words": WORDS}]}})
    assert [record.turns[1].text for record in imported.records] == ["A title\ntwo words", "A\ntitle"]
    assert [record.media[0].path for record in imported.records] == ["0001/1.png", "0001/2.png"]
    assert imported.records[1].source.original_id == "0001#page=2"
    assert imported.report.notes.counted[FLAT].count == 1


def test_make_boxes_writes_thousandths(tmp_path: Path) -> None:
    pages = {"0001.json": {"pages": [PAGE]}, "0001.pdf": b"%PDF"}
    (record,) = tar(tmp_path, "pdfa", pages, make="boxes").records
    assert record.turns[1].text == "A title <box>[100,100,350,400]</box>\ntwo words <box>[0,500,1000,750]</box>"
    assert [(region.box, region.system) for region in record.turns[1].regions] == [
        ((0.1, 0.1, 0.25, 0.3), "fraction_xywh"),
        ((0, 0.5, 1, 0.25), "fraction_xywh"),
    ]


def test_unit_words_takes_words(tmp_path: Path) -> None:
    (record,) = tar(tmp_path, "pdfa", {"1.json": {"pages": [PAGE]}}, unit="words").records
    assert record.turns[1].text == "A\ntitle"


def test_pages_of_a_tiff_are_rendered_on_demand(tmp_path: Path) -> None:
    members = {"a.tif": tiff(), "a.json": {"pages": [FLAT_PAGE] * 3}}
    imported = tar(tmp_path, "idl", members, pages="rendered", make="boxes")
    colours = []
    for record in imported.records:
        medium = record.media[0]
        with Image.open(tmp_path / "pdfa-eng-train-0000.tar-imported" / medium.path) as image:
            colours.append((image.size, image.getpixel((0, 0))))
        assert (medium.width, medium.height, medium.present) == (40, 20, True)
        assert record.turns[1].text == "STOP <box>[100,100,350,400]</box>"
    assert colours == [((40, 20), (0, 0, 0)), ((40, 20), (255, 255, 255))]
    assert [reason.split(":")[0] for reason in imported.reasons] == ["no page in the TIFF"]  # the third


def test_pdf_is_not_rendered(tmp_path: Path) -> None:
    imported = tar(tmp_path, "pdfa", {"1.json": {"pages": [PAGE]}, "1.pdf": b"%PDF"}, pages="rendered")
    assert imported.reasons == ["no TIFF to render: PDFs are not rendered; see docs/importing.md"]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ({"text": ["a", "b"], "bbox": [[0, 0, 1, 1]]}, "not a box for each text: 2 texts"),
        ({"text": [1], "bbox": [[0, 0, 1, 1]]}, "a page without a list of texts: its keys are text, bbox"),
        ({"text": [" "], "bbox": [[0, 0, 1, 1]]}, "a page without text: nothing to read"),
        ({"text": ["a"], "bbox": [[0.5, 0, 0.6, 1]]}, "box [0.5, 0.0, 0.6, 1.0] (fraction_xywh) reaches outside"),
        ({"text": ["a"], "bbox": [[0.5, 0, 0.1]]}, "no box: "),
    ],
)
def test_broken_page_is_rejected_and_the_rest_imported(tmp_path: Path, page: Any, reason: str) -> None:
    imported = tar(tmp_path, "idl", {"a.json": {"pages": [FLAT_PAGE, page]}, "b.json": {}, "c.pdf": b""}, make="boxes")
    assert len(imported.records) == 1
    first, *others = imported.reasons
    assert first.startswith(reason)
    assert others == ["no conversation: None", "not an object: NoneType"]
    assert imported.rejected[0]["record"] == 1
