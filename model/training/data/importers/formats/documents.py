"""pdfa-eng-wds and idl-wds: tars of documents with the words of each page and their boxes, in reading order.

Pages are not rendered, but those of TIFFs on demand: the image of page 3 of the document KEY is `KEY/3.png` of --media.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.regions import OCR_QUESTION, Picture, box_of, choice_of, words_answer
from model.training.data.importers.tiff_pages import page_png
from model.training.data.importers.turns import assistant, image, list_of_turns, user

TEXT_QUESTION = "Read all text of the page."
FLAT = "no lines in a page, so its words were taken"


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record of each page: its text, or its text with boxes."""
    entry = row.entry
    pages = list_of_turns(Row(entry.get("json")).entry.get("pages"))
    with_boxes = choice_of(options, "make", "text", "boxes") == "boxes"
    unit = choice_of(options, "unit", "lines", "words")
    tiff = _tiff(entry) if choice_of(options, "pages", "named", "rendered") == "rendered" else None
    if not pages:
        raise BadSampleError("a document without pages: nothing to read")

    def draft(numbered: tuple[int, Mapping[str, Any]]) -> Draft:
        number, page = numbered
        lines, notes = _lines(page, unit)
        png = page_png(tiff, number) if tiff else None
        shown = image(f"{row.key}/{number + 1}.png", root="records" if png else "media")
        answer = _answer(shown, lines, with_boxes)
        question = OCR_QUESTION if with_boxes else TEXT_QUESTION
        return Draft(
            [user(shown, f"\n{question}"), answer],
            [shown],
            original_id=f"{row.key}#page={number + 1}",
            task="ocr" if with_boxes else "document_text",
            notes=notes,
            embedded={"i0": png} if png else {},
        )

    yield from drafts_of(enumerate(pages), draft)


def _lines(page: Mapping[str, Any], unit: str) -> tuple[list[tuple[str, Any]], list[str]]:
    """Return texts with their boxes in the order of the page, and notes. idl has neither lines nor words, but texts."""
    parts = [part for part in (page.get(unit), page.get("words"), page) if isinstance(part, Mapping)]
    part = parts[0]
    notes = [] if part is page.get(unit) or part is page else [FLAT]
    texts, boxes = part.get("text"), part.get("bbox")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadSampleError("a page without a list of texts: its keys are " + ", ".join(map(str, page))[:100])
    if not isinstance(boxes, list) or len(boxes) != len(texts):
        raise BadSampleError(f"not a box for each text: {len(texts)} texts")
    lines = [(text.strip(), box) for text, box in zip(texts, boxes, strict=True) if text.strip()]
    if not lines:
        raise BadSampleError("a page without text: nothing to read")
    return lines, notes


def _answer(shown: Any, lines: list[tuple[str, Any]], with_boxes: bool) -> Any:
    if not with_boxes:
        return assistant("\n".join(text for text, _ in lines))
    grid = Picture(shown, 1000, 1000)  # fractions need no size
    return words_answer(grid, [(text, box_of(box)) for text, box in lines], "fraction_xywh")


def _tiff(entry: Mapping[str, Any]) -> bytes:
    data = entry.get("tif", entry.get("tiff"))
    if not isinstance(data, bytes):
        raise BadSampleError("no TIFF to render: PDFs are not rendered; see docs/importing.md")
    return data


def _fits(entry: Mapping[str, Any]) -> bool:
    annotation = entry.get("json")
    return isinstance(annotation, Mapping) and "pages" in annotation


_OPTIONS = {
    "make": "text (default), or boxes: each line with its box",
    "unit": "lines (default), or words",
    "pages": "named (default): KEY/1.png of --media; rendered: those of TIFFs are made",
}
_LICENCE = Licence(name="other")
FORMATS = (
    Format(
        "pdfa",
        "pdfa-eng-wds: tars of PDFs with their text",
        read,
        fits=lambda entry: _fits(entry) and "pdf" in entry and not {"tif", "tiff"} & entry.keys(),
        profiles=(Profile("pdfa-eng-wds", _LICENCE),),
        options=_OPTIONS,
    ),
    Format(
        "idl",
        "idl-wds: tars of TIFFs or PDFs with their text",
        read,
        fits=lambda entry: _fits(entry) and bool({"tif", "tiff"} & entry.keys()),
        profiles=(Profile("idl-wds", _LICENCE),),
        options=_OPTIONS,
    ),
)
