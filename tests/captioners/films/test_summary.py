"""Summaries of clips: what the model reads, and what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from captioners.films.dense import EVENTS
from captioners.films.summary import Summary
from captioners.prompts import prompt_hash, read_prompts
from tests import clip_answers
from tests.captioners.films.clips import clips, rows_of, server_engine
from tests.chat_server import chat_server

PROMPT = "Sum up the {duration} seconds."


def stage(url: str, **settings: Any) -> Summary:
    return Summary(model="m", prompts=(PROMPT,), engine=server_engine(url), **settings)


def captioned(**columns: Any) -> pa.Table:
    events = [{"start": 0.0, "end": 2.25, "text": "A dog runs."}, {"start": 2.25, "end": 6.0, "text": "<image> shows."}]
    texts = {"dense_caption": pa.array(["A dog runs <video>."]), "events": pa.array([events], EVENTS)}
    return clips(1, 2, **{**texts, **columns})


def test_summary_is_asked_of_the_caption_without_images(tmp_path: Path) -> None:
    with chat_server(words=clip_answers.valid) as server:
        (row,) = rows_of(tmp_path, stage(server.url), captioned())
        (content,) = server.contents
    assert [part["text"] for part in content] == [
        "Sum up the 6 seconds.\n\nDescription:\nA dog runs < video >.\n\nEvents:\n"
        "0.0 to 2.2 s: A dog runs.\n2.2 to 6.0 s: < image > shows."
    ]
    assert row["summary"].startswith("A summary of number ")
    assert (row["summary_words"], row["summary_cut"], row["summary_prompt"]) == (8, 0, prompt_hash(PROMPT))
    assert (row["error"], row["summary_control_tokens"], row["summary_refused"]) == (None, 0, 0)


def test_summary_of_frames_sends_them_after_their_times(tmp_path: Path) -> None:
    with chat_server(words=lambda images, prompt: "A dog runs.") as server:
        (row,) = rows_of(tmp_path, stage(server.url, source="frames"), captioned())
        (content,) = server.contents
    assert row["summary"] == "A dog runs."
    assert [part.get("text", part["type"]) for part in content] == [
        *("<0.0 seconds>", "image_url", "<3.0 seconds>", "image_url"),
        "Sum up the 6 seconds.",
    ]


def test_empty_summary_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with chat_server(choice={"message": {"content": "<|im_end|>"}}) as server:
        (row,) = rows_of(tmp_path, stage(server.url), captioned())
    assert (row["summary"], row["retry"]) == (None, False)
    assert row["error"] == "empty caption: the model ended it before its first word"


@pytest.mark.parametrize("column", ["dense_caption", "events"])
def test_clip_without_a_dense_caption_is_an_error_unasked(tmp_path: Path, column: str) -> None:
    missing = captioned()
    missing = missing.set_column(
        missing.column_names.index(column), column, pa.nulls(1, missing.schema.field(column).type)
    )
    with chat_server() as server:
        (row,) = rows_of(tmp_path, stage(server.url), missing)
        assert not server.requests
    assert row["error"] == "no dense caption: the clip has none to summarise"


def test_source_decides_what_is_read() -> None:
    assert Summary().reads == ("dense_caption", "events", "duration", "id")
    assert Summary(source="frames").reads == ("frames", "frame_times", "duration", "id")
    assert Summary(source="frames").fingerprint_settings() != Summary().fingerprint_settings()


@pytest.mark.parametrize("use", ["dense", "summary"])
def test_supplied_prompts_name_the_duration(use: str) -> None:
    prompts = read_prompts(use)
    assert len(prompts) >= 3
    if use == "dense":
        assert all(prompt.count("{duration}") == 2 and '{"events": [{"start"' in prompt for prompt in prompts)
        assert all("frame" in prompt for prompt in prompts), "each asks not to speak of frames"
