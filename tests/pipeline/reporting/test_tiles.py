"""Tiles show foreign text as text: escaped, visible, of bounded length."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from pipeline.reporting.thumbnails import Thumbnail
from pipeline.reporting.tiles import tile, tiles_html

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    "\"><img src=x onerror='alert(1)'>",
    "' onload='alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "\u202egpj.exe\u2066\x1b[31m\x00\u200b",
    "a" * 100_000,
    "\ud83d half",
]


class Tags(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    page = Tags()
    page.feed(html)
    return page


def html_of(text: str) -> str:
    row = {
        "id": 1,
        "key": text,
        "status": "kept",
        "drop_reason": text,
        "short_caption": text,
        "score": 0.25,
        "url": text,
    }
    shown = tile(row, Thumbnail(uri="data:image/jpeg;base64,AAAA"), ["short_caption", "score", "url"], label=text)
    hidden = tile(row, Thumbnail(reason=text), ["short_caption"])
    return str(tiles_html([shown, hidden]))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_as_text_and_cut(text: str) -> None:
    plain, page = parsed(html_of("x" * len(text))), parsed(html_of(text))
    assert (page.tags, [name for name, _ in page.attributes]) == (plain.tags, [name for name, _ in plain.attributes])
    assert len(page.text) < 5000
    assert page.text.replace("\n", "").isprintable()
    alt = dict(page.attributes)["alt"]
    assert alt is not None
    assert 0 < len(alt) <= 160
    assert alt.isprintable()


def test_tile_shows_key_status_values_and_reason() -> None:
    row = {
        "id": 9007199254740993,
        "key": "a.jpg",
        "status": "dropped",
        "drop_reason": "quality 0.1 < 0.5",
        "quality": 0.1,
    }
    row |= {"short_caption": "A dog on a beach.", "other": 9007199254740993, "labels": ["dog"] * 500, "none": None}
    one = tile(row, Thumbnail(reason="gone"), ["quality", "other", "labels", "none", "short_caption", "status"])
    assert one.alt == "a.jpg: A dog on a beach."
    values = dict(one.values)
    assert (values["quality"], values["other"], values["none"]) == ("0.1", "9007199254740993", "–")
    assert values["labels"].startswith("dog, dog")
    assert len(values["labels"]) <= 80
    assert dict(one.texts) == {"short_caption": "A dog on a beach."}
    text = " ".join(parsed(str(tiles_html([one]))).text.split())
    assert text.startswith("gone a.jpg dropped")
    assert "quality 0.1 other 9007199254740993" in text
    assert "quality 0.1 < 0.5" in text
