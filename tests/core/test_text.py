"""Text of strangers on terminals and in Markdown: shown, never obeyed."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from core.text import code_block, code_span, markdown, printable

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt; &#60;b&#62;",
    "[link](https://evil.example) ![image](https://evil.example/x.png)",
    "<https://evil.example> https://evil.example www.evil.example a@evil.example",
    "a | b || c \\| d",
    "two\nlines\r\n\n# heading\n\n---\n| a | b |",
    "`code` ``more`` ```\nfence",
    "*emphasis* _under_ ~~gone~~ $x^2$ \\",
    "aspect_ratio > 2 _x_ __y__ a_b_ _c_d > e é_f_é",
    "[ref]: https://evil.example",
    "\x1b[31mred\x1b[0m \x9b2J \x07 \x00 \x08",
    "\u202egnp.exe\u202c \u2066x\u2069 zero\u200bwidth\ufeff",
    "\udcff\ud800",
    "line\u2028separator\u2029paragraph\x85next\x0bvertical\x0cfeed",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_for_a_terminal_is_one_printable_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    shown.encode()


def test_ordinary_text_is_unchanged() -> None:
    for text in ("a cat, 2.5 > 2", "Ein Hund läuft über die Brücke", "猫と犬", "👍🏽 ok", "naïve “quotes” — dash"):
        assert printable(text) == text
    assert printable("a\tb\nc\u3000d\u00a0e") == "a b c d e"
    assert printable("a\nb\tc", keep="\n\t") == "a\nb\tc"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("escape", [markdown, code_span])
def test_text_for_markdown_fits_one_table_cell(text: str, escape: object) -> None:
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    cell = escape(text)  # type: ignore[operator]
    tokens = parser.parse(f"| a | b |\n| --- | --- |\n| {cell} | last |\n| x | y |")
    kinds = [token.type for token in tokens]
    assert kinds.count("tr_open") == 3
    assert kinds.count("td_open") == 4
    inline = next(token for token in tokens if token.type == "inline" and token.map == [2, 3])
    expected = {"text", "text_special"} if escape is markdown else {"text", "code_inline"}
    children = inline.children or []
    assert {child.type for child in children} <= expected
    shown = "".join(child.content for child in children)
    assert " ".join(shown.split()) == " ".join(printable(text).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_text_does_not_close_its_code_block(text: str) -> None:
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(f"{code_block(text, 'yaml')}\n\nend")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].info == "yaml"
