"""The page as a visitor sees it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from model import Processor, VideoLLaMA3
from tests.model.clips import write
from tests.page.conftest import Site

pytestmark = [pytest.mark.page, pytest.mark.timeout(900)]

TOKENS = 24


def expected(folder: Path, *turns: dict[str, Any]) -> str:
    """The model's own answer, as the page shows text: without white space at its ends."""
    model, processor = (kind.from_pretrained(folder) for kind in (VideoLLaMA3, Processor))
    return processor.decode(model.generate(**processor(list(turns)), max_new_tokens=TOKENS)[0])


def plain(text: str) -> str:
    """The visible characters of ASCII: a browser shows others in its own way."""
    return "".join(re.findall("[!-~]", text))


def shorten(tab: Any, tokens: int = TOKENS) -> None:
    """Set the longest answer."""
    tab.page.get_by_text("Settings", exact=True).first.click()
    tab.page.get_by_label("Longest answer").fill(str(tokens))
    tab.page.get_by_label("Longest answer").press("Tab")


def test_photograph_is_answered_as_by_generate(site: Site, folder: Path, photograph: Path) -> None:
    tab = site.open()
    shorten(tab)
    answer = tab.answer("What is this?", photograph)
    asked = {"role": "user", "content": [{"type": "image", "image": str(photograph)}, "What is this?"]}
    assert plain(answer) == plain(expected(folder, asked)) != ""
    assert tab.page.locator("#vl3-seen figcaption").all_inner_texts() == ["image, 100% kept"]
    assert re.search(r"tokens read, 24 written; .*first token after [0-9.]+ s, then [0-9.]+ tokens/s", tab.note())
    assert tab.foreign == []
    assert tab.faults == []


def test_clip_shows_frames_and_what_was_pruned(site: Site, clip: Path) -> None:
    tab = site.open()
    shorten(tab)
    tab.answer("What happens?", clip)
    captions = tab.page.locator("#vl3-seen figcaption").all_inner_texts()
    assert [caption.split(",")[0] for caption in captions] == ["0.0 s", "1.0 s", "2.0 s", "3.0 s"]
    assert captions[0].endswith("100% kept")
    assert "95% kept" in captions[1]
    tab.page.locator("#vl3-seen button[data-time='2']").click()
    assert tab.page.evaluate("document.querySelector('video.vl3-film').currentTime") == 2


def test_answer_is_streamed_and_stop_ends_it(site: Site, photograph: Path) -> None:
    tab = site.open()
    shorten(tab, 900)
    tab.ask("What?", photograph)
    tab.page.wait_for_function("(document.querySelector('[data-testid=bot]') || {innerText: ''}).innerText.length > 20")
    tab.page.click("#vl3-stop")
    tab.page.wait_for_function("document.body.innerText.includes('tokens read')")
    written = re.search(r"tokens read, ([0-9]+) written", tab.note())
    assert written
    assert int(written[1]) < 890


def test_second_question_continues_the_conversation(site: Site, folder: Path, clip: Path) -> None:
    tab = site.open()
    shorten(tab)
    tab.answer("What happens?", clip)
    tab.ask("And then?")
    tab.page.wait_for_function("document.body.innerText.includes('tokens known')")
    film = {"type": "video", "video": str(clip)}
    first = {"role": "user", "content": [film, "What happens?"]}
    said = {"role": "assistant", "content": expected(folder, first)}
    assert plain(tab.answers()[-1]) == plain(expected(folder, first, said, {"role": "user", "content": "And then?"}))


def test_broken_file_is_one_friendly_line(site: Site, tmp_path: Path, photograph: Path) -> None:
    tab = site.open()
    shorten(tab)
    broken = tmp_path / "broken.png"
    broken.write_bytes(photograph.read_bytes()[:60])
    tab.ask("What?", broken)
    line = tab.error()
    assert line.startswith("cannot read broken.png: ")
    assert "\n" not in line
    tab.page.click("#vl3-anew")
    assert tab.answer("And this?", photograph)


def test_wrong_setting_is_one_friendly_line(site: Site) -> None:
    tab = site.open()
    tab.page.get_by_text("Settings", exact=True).first.click()
    tab.page.get_by_label("Pruning threshold").fill("much")
    tab.page.get_by_label("Pruning threshold").press("Tab")
    tab.ask("What?")
    assert tab.error() == "Pruning threshold: give grey levels, 0 to 255, or all"


def test_two_visitors_have_conversations_of_their_own(site: Site, photograph: Path, clip: Path) -> None:
    tabs = [site.open(), site.open()]
    for tab, file, question in zip(tabs, (photograph, clip), ("One?", "Two?"), strict=True):
        shorten(tab)
        tab.ask(question, file)
    for tab in tabs:
        tab.page.wait_for_function("document.body.innerText.includes('tokens read')")
    texts = [tab.page.locator("[data-testid=user]").all_inner_texts() for tab in tabs]
    assert [len(text) for text in texts] == [1, 1]
    assert "One?" in texts[0][0]
    assert "Two?" in texts[1][0]
    assert [tab.page.locator("#vl3-seen figure").count() for tab in tabs] == [1, 4]


def test_film_is_played_and_asked_as_a_stream(site: Site, tmp_path: Path) -> None:
    film = write(tmp_path / "long.mp4", [k / 5 for k in range(40)])
    tab = site.open()
    shorten(tab)
    tab.page.get_by_role("tab", name="Film as a stream").click()
    tab.page.set_input_files("#vl3-stream-film input[type=file]", str(film))
    tab.page.locator("#vl3-stream-film .file-preview").wait_for()
    tab.page.click("#vl3-stream-start")
    tab.page.wait_for_function("document.querySelector('#vl3-stream-seen').innerText.includes('seen up to 1.0 s')")
    tab.page.fill("#vl3-stream-question textarea, #vl3-stream-question input", "What do you see?")
    tab.page.press("#vl3-stream-question textarea, #vl3-stream-question input", "Enter")
    tab.page.wait_for_function("document.body.innerText.includes('tokens read')")
    asked_at = tab.page.locator("#vl3-stream-seen").inner_text()
    tab.page.wait_for_function("document.body.innerText.includes('the film is over')")
    assert "seen up to 7.0 s" in tab.page.locator("#vl3-stream-seen").inner_text() != asked_at
    assert plain(tab.answers()[-1])


def test_camera_adds_its_picture_to_the_question(site: Site) -> None:
    tab = site.open(permissions=["camera"])
    shorten(tab)
    tab.page.click(".vl3-camera button")
    tab.page.get_by_text("Take the picture").wait_for()
    tab.page.click(".vl3-camera button")
    tab.page.locator("#vl3-question .thumbnail-item").first.wait_for()
    tab.answer("What?")
    assert tab.page.locator("#vl3-seen figcaption").all_inner_texts() == ["image, 100% kept"]


def test_files_of_a_visitor_go_with_it(site: Site, photograph: Path) -> None:
    tab = site.open()
    shorten(tab)
    tab.answer("What?", photograph)
    before = len(list(site.temporary.glob("vl3syn-*/visitor-*")))
    tab.page.context.close()
    for _ in range(300):
        if len(list(site.temporary.glob("vl3syn-*/visitor-*"))) < before:
            return
        time.sleep(0.2)
    pytest.fail("its folder is still there")


def test_server_opens_no_connection(site: Site, photograph: Path) -> None:
    tab = site.open()
    shorten(tab)
    tab.answer("What?", photograph)
    assert set(site.connections.read_text().splitlines()) == {"socket.getaddrinfo '127.0.0.1'"}, "where it listens"


def test_new_conversation_ends_the_answer_of_the_old_one(site: Site, photograph: Path) -> None:
    tab = site.open()
    shorten(tab, 900)
    tab.ask("What?", photograph)
    tab.page.wait_for_function("(document.querySelector('[data-testid=bot]') || {innerText: ''}).innerText.length > 20")
    tab.page.click("#vl3-anew")
    tab.page.wait_for_function("document.body.innerText.includes('a new conversation')")
    tab.page.wait_for_timeout(2000)  # what was on its way has come by then
    assert tab.answers() == []
    assert tab.note().startswith("a new conversation")
    tab.page.get_by_label("Longest answer").fill(str(TOKENS))
    tab.page.get_by_label("Longest answer").press("Tab")
    assert tab.answer("And now?")


def test_film_is_started_again_while_it_runs(site: Site, tmp_path: Path) -> None:
    film = write(tmp_path / "long.mp4", [k / 5 for k in range(100)])
    tab = site.open()
    tab.page.get_by_role("tab", name="Film as a stream").click()
    tab.page.set_input_files("#vl3-stream-film input[type=file]", str(film))
    tab.page.locator("#vl3-stream-film .file-preview").wait_for()
    for _ in range(2):
        tab.page.click("#vl3-stream-start")
        tab.page.wait_for_function("document.querySelector('#vl3-stream-seen').innerText.includes('seen up to 0.0 s')")
        tab.page.wait_for_function("document.querySelector('#vl3-stream-seen').innerText.includes('seen up to 2.0 s')")
    assert tab.page.locator(".vl3-error").count() == 0
