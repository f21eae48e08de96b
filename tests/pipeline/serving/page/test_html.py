from __future__ import annotations

import pytest

from model.chat import GenerationStats
from pipeline.serving.page import html
from pipeline.serving.page.pictures import FrameView
from tests.pages import HOSTILE_NAMES, HOSTILE_TEXT, Page


@pytest.mark.parametrize("text", [*HOSTILE_NAMES, HOSTILE_TEXT])
def test_foreign_text_makes_no_element_and_no_attribute(text: str) -> None:
    page = Page(html.error(text) + html.note(text) + html.film("/media/x", 0, text) + html.picture(b"", text))
    assert page.tags == {"div", "video", "img"}
    names = {name for _, name, _ in page.attributes}
    assert names <= {
        "class",
        "role",
        "data-film",
        "controls",
        "muted",
        "playsinline",
        "preload",
        "src",
        "aria-label",
        "alt",
    }
    assert {value for _, name, value in page.attributes if name == "src"} == {"/media/x", "data:image/jpeg;base64,"}


def test_frame_is_a_button_that_jumps_to_its_time() -> None:
    page = Page(html.frames([FrameView(2.5, 0.25, b"x", film=1), FrameView(None, 1.0, b"x")]))
    attributes = {(tag, name): value for tag, name, value in page.attributes}
    assert (attributes["button", "data-time"], attributes["button", "data-film"]) == ("2.5", "1")
    assert [text for text in page.texts if "kept" in text] == ["2.5 s, 25% kept", "image, 100% kept"]


def test_numbers_of_an_answer_are_one_line() -> None:
    stats = GenerationStats(80, 40, 1234, 0, 5, False, 0.5, 2.0)
    assert "1,234 tokens read, 5 written; 80 visual tokens, 50% kept; first token after 0.50 s, then 2.0 tokens/s" in (
        html.stats(stats)
    )
