from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from core import videos
from model import Processor, VideoLLaMA3
from model.config import preset
from model.stream import Stream
from pipeline.serving.answerer import Answerer
from pipeline.serving.page.settings import Settings
from pipeline.serving.page.talk import View
from pipeline.serving.page.watch import Watch
from pipeline.serving.queue import Limits, Queue
from tests.model.clips import write
from tests.model.oracles import widen

SETTINGS = Settings(max_new_tokens=8, fps=10, window=12)


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    return Answerer(model.eval(), Processor.tiny(), ["mine"])


@pytest.fixture
def watch(answerer: Answerer, tmp_path: Path) -> Watch:
    folder = tmp_path / "stream"
    folder.mkdir()
    return Watch(answerer, Queue(Limits(body_bytes=1_000_000), ends=lambda: False), folder)


@pytest.fixture
def film(tmp_path: Path) -> str:
    return str(write(tmp_path / "film.mp4", [k / 10 for k in range(20)]))


def test_question_after_the_film_is_answered_as_by_a_stream(answerer: Answerer, watch: Watch, film: str) -> None:
    sampled = videos.probe(film, fps=10)
    stream = Stream(answerer.model, answerer.processor, window=12, max_new_tokens=8)
    for frame, time in zip(*videos.decode(sampled, lambda frame: frame), strict=True):
        stream.push(frame, time)
    expected = "".join(stream.ask("What?"))

    async def run() -> tuple[list[View], list[View]]:
        played = [view async for view in watch.play(film, SETTINGS)]
        return played, [view async for view in watch.ask("What?")]

    played, asked = anyio.run(run)
    seen = [view.seen for view in played if view.seen]
    assert len(seen) == len(sampled.times) == 20
    assert "seen up to 1.9 s, remembered from 0.9 s" in seen[-1]
    assert asked[-1].messages == [{"role": "user", "content": "What?"}, {"role": "assistant", "content": expected}]


def test_question_while_the_film_runs_knows_what_was_seen(watch: Watch, film: str) -> None:
    async def run() -> tuple[int, int]:
        asked_at = frames = 0

        async def play() -> None:
            nonlocal frames
            async for view in watch.play(film, SETTINGS):
                frames += view.seen is not None

        async with anyio.create_task_group() as group:
            group.start_soon(play)
            while frames < 3:
                await anyio.sleep(0.01)
            *_, last = [view async for view in watch.ask("What?")]
            assert last.messages
            asked_at = frames
        return asked_at, frames

    asked_at, frames = anyio.run(run)
    assert 3 <= asked_at < frames == 20


def test_stop_ends_the_film_and_its_questions_stay(watch: Watch, film: str) -> None:
    async def run() -> list[View]:
        shown = []
        async for view in watch.play(film, SETTINGS):
            shown.append(view)
            if view.seen:
                watch.stop()
        return [*shown, *[view async for view in watch.ask("What?")]]

    shown = anyio.run(run)
    assert sum(view.seen is not None for view in shown) < 4
    assert any(view.note and "stopped at " in view.note for view in shown)
    assert shown[-1].messages


def test_question_before_a_film_is_refused(watch: Watch, tmp_path: Path) -> None:
    async def run(file: str | None) -> list[View]:
        played = [view async for view in watch.play(file, SETTINGS)]
        return [*played, *[view async for view in watch.ask("What?")]]

    (tmp_path / "no.mp4").write_bytes(b"<html>")
    for file, line in ((None, "give a film first"), (str(tmp_path / "no.mp4"), "no.mp4: ")):
        notes = [view.note or "" for view in anyio.run(run, file)]
        assert line in notes[0]
        assert "start a film first" in notes[1]


def test_further_film_takes_the_place_of_the_one_before(watch: Watch, film: str) -> None:
    async def run() -> list[View]:
        first = [view async for view in watch.play(film, SETTINGS)]
        return [*first, *[view async for view in watch.play(film, SETTINGS)]]

    notes = [view.note or "" for view in anyio.run(run)]
    assert sum("the film is over" in note for note in notes) == 2
    assert list(watch.folder.iterdir()) == [], "a film that was played is not kept"


def test_film_ends_when_nobody_reads_what_is_shown(watch: Watch, film: str) -> None:
    shown: list[View] = []

    async def run() -> None:
        async for view in watch.play(film, SETTINGS, lambda: 600 if len(shown) > 5 else 500):
            shown.append(view)

    anyio.run(run)
    assert len(shown) == 6
