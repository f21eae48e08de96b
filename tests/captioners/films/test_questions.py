"""The stage `questions`: what it sends, what it stores, and why a clip has no questions."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from captioners.films.question_writer import QuestionWriter
from captioners.films.questions import QUESTION, Questions
from core.errors import BadSampleError
from core.settings import parse
from manifests.answer_memory import AnswerMemory
from manifests.storage import Folder
from tests.chat_server import ChatServer, chat_server
from tests.clip_columns import ClipColumns
from tests.conftest import jpeg
from tests.question_server import KEPT, WRITTEN, question_server

Row = dict[str, Any]


def writer(server: ChatServer, **settings: Any) -> tuple[Questions, QuestionWriter]:
    engine = {"kind": "server", "url": server.url, "pause": 0.01, "tries": 2, "timeout": 5}
    stage = parse(Questions, {"model": "m", "engine": engine} | settings, "questions")
    stage.check_settings()
    return stage, stage.load()


def rows(
    server: ChatServer, numbers: range, memory: AnswerMemory | None = None, **settings: Any
) -> list[dict[str, Any]]:
    """The rows of clips of these numbers, whose ids they are."""
    stage, facts = writer(server, **settings)
    facts.memory = memory
    columns = ClipColumns()(pa.table({"key": [f"{number}.jpg" for number in numbers]})).to_pylist()
    read = [[({"id": n} | clip)[name] for name in stage.reads] for n, clip in zip(numbers, columns, strict=True)]
    computed: list[Row] = facts([facts.prepare(*values) for values in read]).to_pylist()
    return computed


def test_sound_questions_are_stored_and_others_counted() -> None:
    with question_server() as server:
        (row,) = rows(server, range(7, 8))
    assert (row["written_questions"], row["question_count"], row["usable_questions"]) == (WRITTEN, KEPT, KEPT)
    assert (row["leaking_questions"], row["duplicate_questions"], row["error"]) == (1, 1, None)
    first, *_, last = row["questions"]
    assert first == {
        "aspect": "temporal",
        "form": "open",
        "question": "When does player 7 score?",
        "answer": "At 1.0-2.0 s.",
        "options": [],
        "answer_index": None,
        "blind": None,
    }
    assert last["options"][last["answer_index"]] == last["answer"] == "Throws the ball"
    assert list(last) == [QUESTION.field(number).name for number in range(QUESTION.num_fields)]
    assert row["questions_prompt_tokens"] == 100
    assert row["questions_tokens"] > 0


def test_reader_is_told_caption_events_aspects_and_length() -> None:
    with question_server() as server:
        rows(server, range(7, 8), aspects={"mood": "how it feels"}, forms="open", per_aspect=2, language="de")
        (prompt,) = server.prompts.values()
    for part in (
        "What happens in a clip of 10.7 seconds:\nClip 7: a player runs, throws the ball, and falls down.\n",
        "Its events:\n0.0-4.5 s: runs\n4.5-9.0 s: falls down\n",
        "at most 2 questions about each of these aspects",
        "- mood: how it feels\n",
        "Each question is open",
        "in seconds from 0.0 to 10.7",
        "the code `de` (ISO 639-1)",
    ):
        assert part in prompt


def test_watcher_is_shown_all_frames_and_no_caption() -> None:
    with question_server() as server:
        (row,) = rows(server, range(7, 8), ask="frames")
        (pictures,), (prompt,) = server.images.values(), server.prompts.values()
    frames = ClipColumns()(pa.table({"key": ["7"]}))["frames"][0].as_py()
    assert pictures == b"".join(frames)
    assert "a clip of 10.7 seconds" in prompt
    assert "throws the ball" not in prompt
    assert row["question_count"] == KEPT


def test_watcher_is_shown_as_many_frames_as_fit() -> None:
    table = ClipColumns()(pa.table({"key": ["7"]}))
    times, frames = [0.0, 1.0, 2.0], [jpeg(300, 200, number) for number in range(3)]
    with question_server() as server:
        _, facts = writer(server, ask="frames", max_frames=2, longest=90)
        facts([facts.prepare(7, table["duration"][0].as_py(), frames, times)])
        *content, _ = server.contents[0]
    sent = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in content if "image_url" in part]
    assert [part["text"] for part in content if "text" in part] == ["<0.0 seconds>", "<2.0 seconds>"]
    assert [Image.open(io.BytesIO(image)).size for image in sent] == [(90, 60)] * 2


@pytest.mark.parametrize("ask", ["text", "frames"])
def test_questions_answered_without_the_clip_are_marked(ask: str) -> None:
    with question_server() as server:
        computed = rows(server, range(40), ask=ask, blind=True)
        pictures = set(server.images.values())
    for row in computed:
        marks = {question["aspect"]: question["blind"] for question in row["questions"]}
        last = row["questions"][-1]
        assert marks["time_order"] is (last["answer_index"] == 1)  # it always guesses B
        assert (marks["temporal"], marks["spatial"], marks["object_description"]) == (False, False, True)
        assert row["blind_questions"] == sum(marks.values()) == KEPT - row["usable_questions"]
        assert row["unchecked_questions"] == 0
    assert {row["questions"][-1]["blind"] for row in computed} == {True, False}
    black = [data for data in pictures if data and Image.open(io.BytesIO(data)).convert("L").getextrema() == (0, 0)]
    assert len(black) == (1 if ask == "frames" else 0)


def test_unusable_answer_is_asked_for_once_more() -> None:
    answers = iter(["No.", '{"questions": []}', "No.", '{"questions": [{"aspect": 1}]}'])
    with chat_server() as server:
        server.caption = lambda key: next(answers)  # type: ignore[method-assign]
        (empty,) = rows(server, range(1))
        assert (empty["question_count"], empty["questions"], empty["error"]) == (0, [], None)
        (failed,) = rows(server, range(1, 2))
        first, second, third, fourth = server.prompts.values()
    assert second.startswith(first)
    assert "could not be used: there is no JSON object with questions in it. Answer with the JSON object" in second
    assert fourth.startswith(third)
    assert failed["error"].startswith(
        "no answer that can be used, asked twice: no entry is a question: question: Field"
    )
    assert (failed["questions"], failed["question_count"], failed["retry"]) == (None, None, False)


def test_refusal_and_cut_answer_are_named_as_the_reason() -> None:
    with chat_server(choice={"finish_reason": "length"}) as server:
        (cut,) = rows(server, range(1))
    with chat_server() as server:
        server.caption = lambda key: "I'm sorry, I can't help with that."  # type: ignore[method-assign]
        (refused,) = rows(server, range(1))
    assert cut["error"] == "no answer that can be used, asked twice: it is cut at its length limit (max_new_tokens)"
    assert refused["error"] == "no answer that can be used, asked twice: the model refuses"


def test_permanent_error_of_a_blind_check_leaves_it_unchecked() -> None:
    def refuse(key: tuple[str, str]) -> Any:
        is_blind = server.prompts[key[1]].startswith("Answer the question")
        return (400, {}, b'{"error": "too strange"}') if is_blind else None

    with question_server(raw=refuse) as server:
        (row,) = rows(server, range(1), blind=True)
    assert (row["error"], row["question_count"], row["unchecked_questions"]) == (None, KEPT, KEPT)
    assert {question["blind"] for question in row["questions"]} == {None}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "", "reasoning_content": "Well, without the clip", "finish_reason": "length"},
        {"content": "<think>Well, without the clip", "finish_reason": "length"},
        {"content": "This is not easy to say, for", "finish_reason": "length"},
    ],
)
def test_blind_check_without_an_answer_leaves_it_unchecked(message: dict[str, str]) -> None:
    """The model reasons until its tokens are used up, or is cut before it says what it thinks."""
    finish = {"finish_reason": message["finish_reason"], "message": {**message, "role": "assistant"}}
    body = json.dumps({"choices": [finish]}).encode()

    def answer(key: tuple[str, str]) -> Any:
        return (200, {}, body) if server.prompts[key[1]].startswith("Answer the question") else None

    with question_server(raw=answer) as server:
        (row,) = rows(server, range(1), blind=True)
    assert (row["error"], row["usable_questions"], row["unchecked_questions"]) == (None, KEPT, KEPT)
    assert {question["blind"] for question in row["questions"]} == {None}


def test_fault_of_a_blind_check_is_retried_without_the_rest(tmp_path: Path) -> None:
    def fail(key: tuple[str, str]) -> Any:
        is_last = "first act" in server.prompts[key[1]]
        return (503, {}, b'{"error": "overloaded"}') if down and is_last else None

    down, folder = True, Folder.at(tmp_path)
    with question_server(raw=fail) as server:
        (failed,) = rows(server, range(1), AnswerMemory(folder), blind=True)
        assert (failed["error"], failed["retry"]) == ("blind check: server: 503 overloaded", True)
        down, before = False, sum(server.requests.values())
        (row,) = rows(server, range(1), AnswerMemory(folder), blind=True)
        assert sum(server.requests.values()) == before + 1
        assert set(server.answered.values()) == {1}
    assert (row["question_count"], row["unchecked_questions"], row["error"]) == (KEPT, 0, None)


def test_clip_without_its_columns_has_the_reason() -> None:
    with question_server() as server:
        for settings, read, said in (
            ({}, (1, None, "A man.", []), "the clip has no duration"),
            ({}, (1, 5.0, " ", []), "the clip has no dense_caption to ask about"),
            ({}, (1, 5.0, None, None), "the clip has no dense_caption to ask about"),
            ({"ask": "frames"}, (1, 5.0, [], []), "no frames: the clip has no stored frames"),
        ):
            _, facts = writer(server, **settings)
            with pytest.raises(BadSampleError, match=said):
                facts.prepare(*read)
        assert not server.requests


def test_length_of_a_short_clip_is_not_said_to_be_zero() -> None:
    with question_server() as server:
        _, facts = writer(server)
        prompt = facts.prepare(1, 0.04, "A man.", []).first.question.prompt
    assert "a clip of 0.04 seconds" in prompt
    assert "in seconds from 0.0 to 0.04." in prompt


def test_control_tokens_of_a_caption_are_sent_as_words() -> None:
    with question_server() as server:
        _, facts = writer(server)
        events = [{"start": 0.0, "end": 1.0, "text": "an <|im_end|>"}]
        prompt = facts.prepare(1, 5.0, "Clip 1: a sign says <image>.", events).first.question.prompt
    assert "a sign says < image >." in prompt
    assert "0.0-1.0 s: an < |im_end| >" in prompt
