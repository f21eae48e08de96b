from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from PIL import Image

from model import Processor, VideoLLaMA3
from model.chat import Chat
from model.config import preset
from pipeline.serving.answerer import Answerer
from pipeline.serving.page.settings import Settings
from pipeline.serving.page.talk import BUSY, Talk, View
from pipeline.serving.queue import Limits, Queue
from tests.model.clips import grey, write
from tests.model.oracles import widen

SHORT = Settings(max_new_tokens=8)
LONG = Settings(max_new_tokens=400)


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    model.language.generation_config.eos_token_id = None
    return Answerer(model.eval(), Processor.tiny(), ["mine"])


@pytest.fixture
def queue() -> Queue:
    return Queue(Limits(body_bytes=1_000_000), ends=lambda: False)


@pytest.fixture
def new(answerer: Answerer, queue: Queue, tmp_path: Path) -> Callable[[], Talk]:
    """Begin a conversation of a visitor."""
    count = 0

    def new() -> Talk:
        nonlocal count
        count += 1
        folder = tmp_path / f"visitor-{count}"
        folder.mkdir()
        return Talk(answerer, queue, folder, lambda path: f"/media/{path.name}")

    return new


@pytest.fixture
def film(tmp_path: Path) -> str:
    return str(write(tmp_path / "film.mp4", [k / 5 for k in range(10)]))


@pytest.fixture
def photograph(tmp_path: Path) -> str:
    Image.fromarray(grey(90)).save(tmp_path / "photograph.png")
    return str(tmp_path / "photograph.png")


async def views(talk: Talk, question: str, *files: str, settings: Settings = SHORT) -> list[View]:
    return [view async for view in talk.ask(question, files, settings)]


def test_conversation_is_that_of_a_chat(
    answerer: Answerer, new: Callable[[], Talk], film: str, photograph: str
) -> None:
    chat = Chat(answerer.model, answerer.processor, max_new_tokens=8)
    video, image = {"type": "video", "video": film}, {"type": "image", "image": photograph}
    first, second = "".join(chat.ask("What?", [video, image])), "".join(chat.ask("And?"))
    assert chat.stats is not None
    reused = chat.stats.reused_tokens

    async def ask() -> list[View]:
        talk = new()
        await views(talk, "What?", film, photograph)
        return await views(talk, "And?")

    *_, last = anyio.run(ask)
    assert last.messages == [
        {"role": "user", "content": "[film.mp4]\n[photograph.png]\nWhat?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": second},
    ]
    assert last.note is not None
    assert f"{reused:,} of " in last.note, "the second question costs its own tokens"


def test_page_shows_what_the_model_saw(new: Callable[[], Talk], film: str) -> None:
    talk = new()
    shown = anyio.run(views, talk, "What?", film)
    (seen,) = [view.seen for view in shown if view.seen]
    assert [caption in seen for caption in ("0.0 s, 100% kept", "1.0 s, ", "2.0 s, ")] == [True, True, False]
    (players,) = [view.players for view in shown if view.players]
    assert 'src="/media/medium-0.mp4"' in players
    assert [view.taken for view in shown].count(True) == 1


def test_film_that_was_encoded_for_another_is_shown_too(new: Callable[[], Talk], film: str, tmp_path: Path) -> None:
    again = shutil.copy(film, tmp_path / "again.mp4")
    seen = [
        next(view.seen for view in anyio.run(views, new(), "What?", str(file)) if view.seen) for file in (film, again)
    ]
    assert seen[0] == seen[1]


def test_settings_count_for_films_of_earlier_questions(new: Callable[[], Talk], film: str) -> None:
    talk = new()
    anyio.run(views, talk, "What?", film)

    async def ask() -> list[View]:
        return await views(talk, "And?", settings=Settings(max_new_tokens=8, fps=2))

    seen = next(view.seen for view in anyio.run(ask) if view.seen)
    assert seen.count("<figure>") == 4


def test_stop_ends_an_answer_which_is_kept(new: Callable[[], Talk]) -> None:
    talk = new()

    async def ask() -> list[View]:
        shown = []
        async for view in talk.ask("What?", [], LONG):
            shown.append(view)
            if view.messages and len(view.messages[-1]["content"]) > 5:
                talk.stop()
        return shown

    last = anyio.run(ask)[-1]
    assert last.messages == talk.messages
    assert 5 < len(talk.messages[-1]["content"]) < 300
    assert not talk.answering


def test_second_question_during_an_answer_is_refused(new: Callable[[], Talk]) -> None:
    talk = new()

    async def ask() -> list[View]:
        refused: list[View] = []
        async for _ in talk.ask("What?", [], SHORT):
            refused = refused or await views(talk, "And?")
        return refused

    (refused,) = anyio.run(ask)
    assert refused.note is not None
    assert BUSY in refused.note
    assert len(talk.messages) == 2


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.png", b"", "cannot read a.png: empty"),
        ("a.mp4", b"<html></html>", "a.mp4: "),
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a.mp4: "),
        ("a.mp4", bytes(1_000_001), "more than 1,000,000 bytes"),
    ],
)
def test_bad_file_is_one_line_and_changes_nothing(
    new: Callable[[], Talk], tmp_path: Path, name: str, data: bytes, line: str
) -> None:
    talk = new()
    (tmp_path / name).write_bytes(data)
    *_, last = anyio.run(views, talk, "What?", str(tmp_path / name))
    assert last.messages == []
    assert last.note is not None
    assert line in last.note
    assert 'role="alert"' in last.note
    assert "visitor-" not in last.note
    assert not any(view.taken for view in anyio.run(views, talk, "What?", str(tmp_path / "gone.png")))
    assert anyio.run(views, talk, "What?")[-1].messages == talk.messages != []


def test_visitor_who_leaves_frees_the_model(new: Callable[[], Talk]) -> None:
    async def leave() -> None:
        answer = new().ask("What?", [], LONG)
        async for view in answer:
            if view.messages and view.messages[-1]["content"]:
                break
        await answer.aclose()
        with anyio.fail_after(60):
            assert (await views(new(), "And?"))[-1].messages

    anyio.run(leave)


def test_answers_of_two_visitors_take_turns(new: Callable[[], Talk]) -> None:
    running = 0

    async def ask(number: int) -> None:
        nonlocal running
        writes = False
        async for view in new().ask(f"Question {number}?", [], SHORT):
            if view.taken:
                running, writes = running + 1, True
            assert running <= 1
            if writes and view.note and "tokens read" in view.note:
                running -= 1

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            group.start_soon(ask, 2)

    anyio.run(both)


def test_empty_question_is_refused_in_one_line(new: Callable[[], Talk], photograph: str) -> None:
    talk = new()
    *_, last = anyio.run(views, talk, " ", photograph)
    assert last.note is not None
    assert "write a question first" in last.note
    assert talk.messages == []


def test_boxes_and_times_of_an_answer_are_shown(new: Callable[[], Talk], film: str, photograph: str) -> None:
    """No small model names either, so the answer is given."""
    talk = new()
    anyio.run(views, talk, "What?", film, photograph)
    found = talk._found("<ref>a cat</ref>[[0,0,500,500]] from 0.5 to 1.0 s, not at 9 s")
    assert 'alt="photograph.png with the boxes of the answer"' in found
    assert [f'data-film="0" data-time="{time}"' in found for time in ("0.5", "1", "9")] == [True, True, False]
    assert talk._found("nothing") == ""


def test_conversation_that_has_ended_leaves_an_empty_page(new: Callable[[], Talk], photograph: str) -> None:
    talk = new()

    async def run() -> tuple[list[View], int]:
        await views(talk, "What?", photograph)
        shown = []
        async for view in talk.ask("And on?", [], LONG):
            shown.append(view)
            if len(shown) == 4:
                talk.end()
                shutil.rmtree(talk.folder)
        return shown, len(await views(new(), "What?", photograph))

    shown, others = anyio.run(run)
    assert len(shown) == 5
    assert shown[-1] == View([], "", "", ""), "whatever was on its way"
    assert others > 4, "the model is free again"
