"""Dense captions through the real client: what is asked, asked again, stored, and refused."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from captioners.films.dense import DenseCaption
from captioners.prompts import prompt_hash
from manifests.answer_memory import AnswerMemory
from manifests.storage import Folder
from pipeline.recipe import parse_recipe
from tests import clip_answers
from tests.captioners.films.clips import clips, rows_of, server_engine
from tests.chat_server import FAULTS, ChatServer, chat_server
from tests.conftest import jpeg

PROMPT = "The clip lasts {duration} seconds."


def stage(url: str, **settings: Any) -> DenseCaption:
    engine = server_engine(url, **settings.pop("engine", {}))
    return DenseCaption(model="m", prompts=(PROMPT,), engine=engine, **settings)


def test_dense_caption_has_events_paragraph_and_quality(tmp_path: Path) -> None:
    table = clips(1)
    images = hashlib.sha256(b"".join(table["frames"][0].as_py())).hexdigest()
    with chat_server(words=clip_answers.valid) as server:
        (row,) = rows_of(tmp_path, stage(server.url), table)
    dog = f"A dog, number {images[:8]}, runs over a field"
    words = clip_answers.valid(images, "6 seconds")
    assert 0.01 < row.pop("dense_language") <= 1
    assert row == {
        "id": 0,
        "dense_caption": f"{dog} and then sleeps.",
        "events": [
            {"start": 0.0, "end": 3.0, "text": f"{dog}."},
            {"start": 3.0, "end": 6.0, "text": "The dog lies down beside an old man and sleeps."},
        ],
        "event_count": 2,
        "dense_prompt": prompt_hash(PROMPT),
        "dense_words": 11,
        "dense_cut": 0,
        "dense_refused": 0,
        "dense_repetition": 0.0,
        "dense_prompt_tokens": 100 + len(b"".join(table["frames"][0].as_py())) % 50,
        "dense_tokens": len(words.split()),
        "dense_raw_characters": len(words),
        "dense_control_tokens": 0,
        "dense_tries": 1,
        "error": None,
        "retry": False,
    }


def test_question_has_frames_after_their_times_and_the_duration(tmp_path: Path) -> None:
    table = clips(1, duration=pa.array([7.25]))
    with chat_server(words=clip_answers.valid) as server:
        rows_of(tmp_path, stage(server.url), table)
        (content,) = server.contents
        data = b"".join(table["frames"][0].as_py())
        assert set(server.images.values()) == {data}, "the stored JPEGs are sent unchanged"
    kinds = ["text", "image_url"] * 3 + ["text"]
    assert [part["type"] for part in content] == kinds
    times = ["<0.0 seconds>", "<2.0 seconds>", "<4.0 seconds>"]
    assert [part["text"] for part in content if part["type"] == "text"] == [*times, "The clip lasts 7.2 seconds."]


@pytest.mark.parametrize(("duration", "said"), [(0.04, "0.04"), (0.5, "0.5"), (6.0, "6")])
def test_prompt_has_the_length_of_a_short_clip(tmp_path: Path, duration: float, said: str) -> None:
    with chat_server(words=clip_answers.valid) as server:
        rows_of(tmp_path, stage(server.url), clips(1, duration=pa.array([duration])))
        assert server.contents[0][-1]["text"] == f"The clip lasts {said} seconds."


@pytest.mark.parametrize(("most", "times"), [(1, [0]), (2, [0, 5]), (4, [0, 2, 3, 5]), (6, [0, 1, 2, 3, 4, 5])])
def test_many_frames_are_thinned_out_evenly(tmp_path: Path, most: int, times: list[int]) -> None:
    with chat_server(words=clip_answers.valid) as server:
        rows_of(tmp_path, stage(server.url, max_frames=most), clips(1, frames=6))
        said = [part["text"] for part in server.contents[0][:-1] if part["type"] == "text"]
    assert said == [f"<{time}.0 seconds>" for time in times]


def test_large_frames_are_scaled_down(tmp_path: Path) -> None:
    frames = pa.array([[jpeg(300, 200)]], pa.list_(pa.binary()))
    table = clips(1, 1).set_column(1, "frames", frames)
    with chat_server(words=clip_answers.valid) as server:
        rows_of(tmp_path, stage(server.url, longest=90), table)
        (sent,) = server.images.values()
    assert Image.open(io.BytesIO(sent)).size == (90, 60)


def test_invalid_answer_is_asked_again_once_with_its_reason(tmp_path: Path) -> None:
    table = clips(3)
    with chat_server(words=clip_answers.broken_first) as server:
        rows = rows_of(tmp_path, stage(server.url), table)
        prompts = [content[-1]["text"] for content in server.contents]
    assert [(row["dense_tries"], row["event_count"], row["error"]) for row in rows] == [(2, 2, None)] * 3
    first, again = "The clip lasts 6 seconds.", next(prompt for prompt in prompts if clip_answers.AGAIN in prompt)
    assert Counter(prompts) == {first: 3, again: 3}
    assert again.startswith(f"{first}\n\nYour last answer to this could not be used: no valid JSON (")
    assert [row["dense_prompt_tokens"] for row in rows] == [
        2 * (100 + len(b"".join(frames)) % 50) for frames in table["frames"].to_pylist()
    ]


def test_never_valid_answer_is_an_error_after_two_tries(tmp_path: Path) -> None:
    with chat_server(words=clip_answers.never) as server:
        rows = rows_of(tmp_path, stage(server.url), clips(2))
        assert sum(server.requests.values()) == 4
    reason = "no valid answer in two tries: no JSON object in the answer; the last one begins 'I see a dog that"
    for row in rows:
        assert row["error"].startswith(reason)
        assert (row["retry"], row["dense_caption"], row["events"], row["event_count"]) == (False, None, None, None)
        assert (row["dense_tries"], row["dense_prompt"]) == (2, prompt_hash(PROMPT))


def test_answer_that_is_cut_says_so_in_its_reason(tmp_path: Path) -> None:
    cut = {"finish_reason": "length", "message": {"content": '{"events": [{"start": 0, "end'}}
    with chat_server(choice=cut) as server:
        (row,) = rows_of(tmp_path, stage(server.url), clips(1))
    assert row["error"].startswith("no valid answer in two tries: cut off before its end; no valid JSON (")


def test_refused_second_question_is_an_error_of_the_server(tmp_path: Path) -> None:
    def refuse_again(key: tuple[str, str]) -> Any:
        body = b'{"error": {"message": "too long"}}'
        return None if key[1] == prompt_hash("The clip lasts 6 seconds.") else (400, {}, body)

    with chat_server(words=clip_answers.never, raw=refuse_again) as server:
        (row,) = rows_of(tmp_path, stage(server.url), clips(1))
    assert (row["error"], row["retry"], row["dense_tries"]) == ("server: 400 too long", False, 2)


def test_first_answer_is_not_asked_for_again_after_a_fault(tmp_path: Path) -> None:
    first, table = prompt_hash("The clip lasts 6 seconds."), clips(1).to_pydict()

    def attempt(server: ChatServer) -> dict[str, Any]:
        facts = stage(server.url).load()
        facts.memory = AnswerMemory(Folder.at(tmp_path))
        columns = (table[name][0] for name in ("frames", "frame_times", "duration", "id"))
        row: dict[str, Any] = facts([facts.prepare(*columns)]).to_pylist()[0]
        return row

    with chat_server(words=clip_answers.broken_first, raw=lambda key: None if key[1] == first else (500, {}, b"")) as s:
        failed = attempt(s)
    with chat_server(words=clip_answers.broken_first) as server:
        row = attempt(server)
        assert [clip_answers.AGAIN in prompt for prompt in server.prompts.values()] == [True]
    assert (failed["retry"], row["error"], row["dense_tries"]) == (True, None, 2)


def test_question_that_the_server_refuses_is_asked_once(tmp_path: Path) -> None:
    with chat_server(faults=("400",), share=1.0) as server:
        (row,) = rows_of(tmp_path, stage(server.url), clips(1))
        assert sum(server.requests.values()) == 1
    assert (row["error"], row["dense_tries"]) == ("server: 400 the image is too strange", 1)


def test_each_clip_of_a_batch_has_its_own_duration() -> None:
    table = clips(2, duration=pa.array([4.0, 9.0])).to_pydict()
    with chat_server(words=clip_answers.valid) as server:
        facts = stage(server.url).load()
        columns = zip(*(table[name] for name in ("frames", "frame_times", "duration", "id")), strict=True)
        rows = facts([facts.prepare(*clip) for clip in columns]).to_pylist()
    assert [row["events"][-1]["end"] for row in rows] == [4.0, 9.0]


def test_every_clip_ends_sound_or_with_a_reason(tmp_path: Path) -> None:
    with chat_server(words=clip_answers.mixed, faults=("400", *FAULTS), share=0.2) as server:
        rows = rows_of(tmp_path, stage(server.url, engine={"timeout": 1}), clips(60))
        assert max(server.answered.values()) == 1, "no answer is asked for again"
    sound = [row for row in rows if row["error"] is None]
    assert len(rows) == 60
    assert {row["dense_tries"] for row in sound} == {1, 2}
    assert all(row["event_count"] == len(row["events"]) == 2 and row["dense_caption"] for row in sound)
    failed = [row for row in rows if row["error"]]
    assert all(row["events"] is None and row["dense_caption"] is None for row in failed)
    assert {row["error"].split(":")[0] for row in failed} == {"server", "no valid answer in two tries"}
    assert {row["retry"] for row in failed if row["error"].startswith("no valid")} == {False}


def test_reasoning_and_control_tokens_are_handled(tmp_path: Path) -> None:
    events = [{"start": 0, "end": 2, "text": "A sign says <image>."}]
    told = {"events": events, "paragraph": "A sign, <video>, on a wall."}
    choice = {"message": {"content": f"<think>{{}} an object?</think>{json.dumps(told)}<|im_end|>"}}
    with chat_server(choice=choice) as server:
        (row,) = rows_of(tmp_path, stage(server.url), clips(1))
    assert (row["dense_caption"], row["dense_control_tokens"]) == ("A sign, <video>, on a wall.", 2)


@pytest.mark.parametrize(
    ("column", "value", "error"),
    [
        ("frames", pa.array([[], None], pa.list_(pa.binary())), "no frames: "),
        ("frame_times", pa.array([[1.0], None], pa.list_(pa.float32())), "no frames: "),
        ("frames", pa.array([[b"no picture"] * 3] * 2, pa.list_(pa.binary())), "un"),
        ("duration", pa.array([None, float("nan")], pa.float64()), "no duration: the clip's length is not known"),
    ],
    ids=["no frames", "other times", "undecodable", "no duration"],
)
def test_clip_that_cannot_be_shown_is_an_error_unasked(tmp_path: Path, column: str, value: Any, error: str) -> None:
    table = clips(2)
    table = table.set_column(table.column_names.index(column), column, value)
    with chat_server(words=clip_answers.valid) as server:
        rows = rows_of(tmp_path, stage(server.url), table)
        assert not server.requests
    assert all(row["error"].startswith(error) for row in rows)


def test_engine_for_one_image_is_refused_in_one_line() -> None:
    with pytest.raises(ValidationError) as refused:
        DenseCaption(engine={"kind": "lmdeploy"})  # type: ignore[arg-type]
    (error,) = refused.value.errors()
    assert error["msg"] == (
        "Value error, lmdeploy takes one image per question, and a clip has several; give {kind: server, url: …} or "
        "{kind: transformers}"
    )


def test_recipe_without_stored_frames_says_what_to_add() -> None:
    recipe = {"pool": {"images": "x"}, "stages": [{"stage": "dense_caption", "model": "m"}]}
    with pytest.raises(ValueError, match="add the stage frames before it, which stores frames of each clip"):
        parse_recipe(recipe, "test")


def test_settings_of_the_question_are_in_the_fingerprint() -> None:
    plain = DenseCaption().fingerprint_settings()
    assert DenseCaption(max_frames=8).fingerprint_settings() != plain
    server = {"kind": "server", "url": "http://a/v1", "video": "jpeg_list"}
    assert DenseCaption(engine=server).fingerprint_settings() == plain  # type: ignore[arg-type]
