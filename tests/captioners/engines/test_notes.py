"""The engine for long clips, over a server: what each part is asked, and what the answer is out of."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from captioners.engines.base import Answer, Engine, Frame, Question, Sampling
from captioners.engines.notes import DESCRIBE, Notes, NotesEngine
from captioners.engines.registry import read_engine
from captioners.films.dense import DenseCaption
from captioners.films.questions import Questions
from captioners.films.summary import Summary
from core.errors import UserError
from tests.captioners.films.clips import clips, rows_of, server_engine
from tests.chat_server import ChatServer, Raw, chat_server
from tests.conftest import jpeg

SAMPLING = Sampling(64, 0.0, 1.0, 0)


def words(images: str, prompt: str) -> str:
    """A caption of frames; of notes, how many lines it has read."""
    if prompt.startswith(DESCRIBE):
        return f"a dog {images[:6]}"
    return f"out of {prompt.count(' s: ')} notes: {prompt.splitlines()[-1]}"


def loaded(server: ChatServer, **settings: Any) -> NotesEngine:
    engine = read_engine({"kind": "notes", "frames": server_engine(server.url), "part": 10, **settings})
    assert isinstance(engine, Notes)
    return engine.load("m", "test", None, SAMPLING)


def asked(engine: NotesEngine, *times: list[float]) -> list[Answer]:
    clips = [tuple(Frame(time, jpeg(16, 16, int(time))) for time in clip) for clip in times]
    return engine([engine.prepare(Question(None, "What happens?", clip)) for clip in clips])


def test_long_clip_is_answered_out_of_the_notes_of_its_parts() -> None:
    with chat_server(words=words) as server:
        long, short = asked(loaded(server), [0.0, 5.0, 12.0, 25.0, 31.0], [0.0, 9.0])
        contents = [content for content in server.contents]
    assert long.text == "out of 4 notes: What happens?"
    assert short.text == "out of 0 notes: What happens?"  # asked directly, about its frames
    texts = [" ".join(part["text"] for part in content if part["type"] == "text") for content in contents]
    notes = next(text for text in texts if "0.0-12.0 s: a dog" in text)
    assert "12.0-25.0 s: a dog" in notes
    assert "31.0-31.0 s: a dog" in notes
    assert sum(DESCRIBE in text for text in texts) == 4


def test_notes_that_are_too_long_are_summed_up() -> None:
    def long_winded(images: str, prompt: str) -> str:
        return "word " * 100 if prompt.startswith(DESCRIBE) else words(images, prompt)

    with chat_server(words=long_winded) as server:
        (answer,) = asked(loaded(server, longest_text=2800), [10.0 * n for n in range(8)])
    assert answer.text == "out of 2 notes: What happens?"


def test_failed_part_is_the_error_of_the_answer() -> None:
    with chat_server(words=words, faults=("400",), share=1.0) as server:
        (answer,) = asked(loaded(server), [0.0, 15.0])
    assert answer.error
    assert not answer.text


def test_tokens_of_all_questions_are_counted() -> None:
    with chat_server(words=words) as server:
        (answer,) = asked(loaded(server), [0.0, 15.0])
    assert answer.tokens is not None
    assert answer.tokens > len("out of 2 notes: What happens?".split())


@pytest.mark.parametrize("part", ["frames", "answers"])
def test_engine_for_one_image_is_refused(part: str) -> None:
    server = server_engine("http://127.0.0.1:9/v1")
    settings: dict[str, Any] = {"kind": "notes", "frames": server, "answers": server, part: {"kind": "lmdeploy"}}
    engine = read_engine(settings)
    with pytest.raises(UserError, match="lmdeploy takes one image"):
        engine.check_available("m", "dense_caption", None)


def test_recipe_of_a_stage_names_both_engines() -> None:
    written = {"kind": "notes", "frames": server_engine("http://127.0.0.1:9/v1"), "answers_model": "llm"}
    stage = DenseCaption(engine=written)  # type: ignore[arg-type]
    again = DenseCaption.model_validate(stage.model_dump(mode="json"))
    assert again == stage
    assert isinstance(again.engine, Notes)
    assert again.engine.answers_model == "llm"
    assert list(again.models) == [again.model, "llm"]
    assert list(Questions(engine=written).models)[1:] == ["llm"]  # type: ignore[arg-type]


class Counting(Engine):
    """An engine that counts the questions of each call, and the calls at a time."""

    def __init__(self, calls: int) -> None:
        self.calls, self.sizes, self.most, self._now = calls, list[int](), 0, 0

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        self._now += 1
        self.most = max(self.most, self._now)
        self.sizes.append(len(questions))
        time.sleep(0.01)
        self._now -= 1
        return [Answer(text="a dog")] * len(questions)


def notes(frames: Engine, answers: Engine) -> NotesEngine:
    settings = read_engine({"kind": "notes", "frames": server_engine("http://127.0.0.1:9/v1"), "part": 10})
    return NotesEngine(frames, answers, settings)


def test_answering_engine_is_called_no_more_than_it_accepts() -> None:
    answers = Counting(1)
    engine = notes(Counting(8), answers)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: asked(engine, [0.0, 15.0]), range(16)))
    assert (answers.most, len(answers.sizes)) == (1, 16)


def test_parts_are_seen_one_by_one_by_an_engine_that_batches() -> None:
    frames = Counting(1)
    engine = notes(frames, frames)
    asked(engine, [0.0, 15.0, 25.0], [0.0])
    assert set(frames.sizes) == {1}
    frames.sizes.clear()
    asked(engine, [0.0], [0.0])
    assert frames.sizes == [2]


def test_notes_have_neither_reasoning_nor_control_tokens() -> None:
    def thinking(images: str, prompt: str) -> str:
        return "<think>Hm.</think>A sign says <image>." if prompt.startswith(DESCRIBE) else words(images, prompt)

    with chat_server(words=thinking) as server:
        asked(loaded(server), [0.0, 15.0])
        (prompt,) = (prompt for prompt in server.prompts.values() if "What happens?" in prompt)
    assert "0.0-15.0 s: A sign says < image >.\n" in prompt
    assert "think" not in prompt


def test_part_without_words_is_an_error() -> None:
    with chat_server(words=lambda images, prompt: "<think>Hm.</think>") as server:
        (answer,) = asked(loaded(server), [0.0, 15.0])
    assert (answer.error or "").startswith("the model says nothing of a part: ")


def summary_row(folder: Path, part: dict[str, Any] | None = None, summed_up: dict[str, Any] | None = None) -> Any:
    """The summary of a clip of five parts; `part`, `summed_up`: what replaces the first part's choice, a sum-up's."""

    asked: list[str] = []

    def instead(key: tuple[str, str]) -> Raw | None:
        prompt = server.prompts[key[1]]
        asked.append(prompt)
        changed = part if len(asked) == 1 else summed_up if "Sum them up" in prompt else None
        said = "word " * 200 if DESCRIBE in prompt else "A dog runs over a field and barks."
        choice = {"message": {"content": said}, "finish_reason": "stop"} | (changed or {})
        return 200, {}, json.dumps({"choices": [choice]}).encode()

    with chat_server(raw=instead) as server:
        settings = {"kind": "notes", "frames": server_engine(server.url), "part": 1, "longest_text": 4600}
        stage = Summary(model="m", source="frames", engine=settings)  # type: ignore[arg-type]
        (row,) = rows_of(folder, stage, clips(1, 5))
        assert part or any("Sum them up" in prompt for prompt in asked)
    return row


LONG = {"finish_reason": "length"}


def test_answer_out_of_whole_notes_is_whole(tmp_path: Path) -> None:
    row = summary_row(tmp_path)
    assert (row["summary"], row["summary_cut"], row["summary_refused"]) == ("A dog runs over a field and barks.", 0, 0)


@pytest.mark.parametrize("cut", [LONG, {"message": {"content": "A dog. <think>And then"}}], ids=["long", "thinking"])
@pytest.mark.parametrize("which", ["part", "summed_up"])
def test_answer_out_of_cut_notes_is_cut(tmp_path: Path, which: str, cut: dict[str, Any]) -> None:
    row = summary_row(tmp_path, **{which: cut})
    assert (row["error"], row["summary_cut"], row["summary_refused"]) == (None, 1, 0)


@pytest.mark.parametrize("message", [{"content": "I can't assist with that. " * 20}, {"refusal": "No. " * 100}])
@pytest.mark.parametrize("which", ["part", "summed_up"])
def test_answer_out_of_refused_notes_is_refused(tmp_path: Path, which: str, message: dict[str, Any]) -> None:
    row = summary_row(tmp_path, **{which: {"message": message}})
    assert (row["error"], row["summary_cut"], row["summary_refused"]) == (None, 0, 1)


@pytest.mark.parametrize("said", ["", "<think>Hm.</think>", "\u200b"])
@pytest.mark.parametrize("which", ["part", "summed_up"])
def test_note_without_words_is_an_error(tmp_path: Path, which: str, said: str) -> None:
    row = summary_row(tmp_path, **{which: {"message": {"content": said}}})
    assert (row["summary"], row["retry"]) == (None, False)
    assert row["error"].startswith("the model says nothing of a part: ")


def test_provenance_names_the_model_that_answers() -> None:
    with chat_server(words=words) as server:
        provenance = loaded(server, answers_model="llm").provenance
    assert provenance["notes"] == {"engine": "server", "server": server.url, "model": "llm"}
