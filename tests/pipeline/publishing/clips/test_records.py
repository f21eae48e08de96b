"""Published clips are what a training reads: every record, with the frames of the film at the film's times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.records import Record
from manifests import Run
from manifests.record_files import read_records
from model import Processor
from model.training.data.grounding import spans_of
from model.training.data.records import RecordSource
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.core.numbered_films import shown
from tests.model.training import training_data
from tests.pipeline.publishing.clips.clip_runs import CUTS, STAGES, clip_run, clips_pool, facts, pool, publish

pytestmark = [pytest.mark.usefixtures("clips_pool", "here"), pytest.mark.timeout(180)]
__all__ = ["clips_pool"]

SUBSETS = ("captions", "questions", "grounding", "stream")
ways = pytest.mark.parametrize("films_are", ["reference", pytest.param("copy", marks=pytest.mark.thorough), "encode"])


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return pool(tmp_path / "pool")


@pytest.fixture
def run(tmp_path: Path, films: Path) -> Run:
    return clip_run(tmp_path / "run", films, facts())


def sources(run: Run, films: Path, out: Path, films_are: str) -> dict[str, dict[str, str]]:
    """Publish; the sources of a training."""
    publish(run, out, films=films_are)
    media = films if films_are == "reference" else out
    return {subset: {"records": str(out / subset), "media": str(media)} for subset in SUBSETS}


def video_parts(conversation: Any) -> list[Mapping[str, Any]]:
    contents = [message["content"] for message in conversation if not isinstance(message["content"], str)]
    return [part for content in contents for part in content if not isinstance(part, str)]


def piece_of(record: Record) -> tuple[str, float, float]:
    """The film and the span of a record's clip."""
    span = record.source.original_id.partition(":")[2]
    start, end = span.split("-")
    return record.source.file.partition("/")[0], float(start), float(end)


@ways
def test_a_training_reads_every_record_and_the_right_frames(
    run: Run, films: Path, tmp_path: Path, films_are: str
) -> None:
    processor = Processor.tiny()
    for subset, source in sources(run, films, tmp_path / "out", films_are).items():
        records = list(read_records(source["records"]))
        opened = RecordSource(subset, source["records"], source["media"])
        assert sum(opened.blocks) == len(records)
        for number, record in enumerate(records):
            conversation = opened.sample(number).conversation
            processor(conversation)
            film, start, end = piece_of(record)
            parts = video_parts(conversation)
            last = max(part.get("until", end) for part in parts)
            (first, until) = parts[0].get("start", 0.0), parts[0].get("end")
            seen = shown(parts[0]["video"], first, until, fps=5)
            # In a stream the last frame is that of the last turn, whatever comes behind it.
            expected = shown(films / film, start, end if last == end else None, fps=5)
            assert seen == expected[: len(seen)]
            assert len(seen) in (len(expected), len(expected) - 1) or record.is_stream


@ways
def test_spans_lie_in_the_clip_and_in_the_answers(run: Run, films: Path, tmp_path: Path, films_are: str) -> None:
    sources(run, films, tmp_path / "out", films_are)
    for record in read_records(tmp_path / "out/grounding"):
        _, start, end = piece_of(record)
        assert record.media[0].length == pytest.approx(end - start)
        answer = record.turns[-1]
        (span,) = answer.spans
        assert 0 <= span.start < span.end <= end - start + 1e-6
        assert spans_of(answer.text) == [pytest.approx((span.start, span.end), abs=0.05)]
        assert f"of {record.source.file.rpartition('/')[2]}" in record.turns[0].text


def test_stream_tells_each_event_when_it_is_over(run: Run, films: Path, tmp_path: Path) -> None:
    sources(run, films, tmp_path / "out", "encode")
    for record in read_records(tmp_path / "out/stream"):
        _, start, end = piece_of(record)
        question, first, second = record.turns
        assert (question.time, first.time, second.time) == (0.0, 1.0, pytest.approx(end - start, abs=1e-3))
        assert (first.text.split()[0], second.text.split()[0]) == ("Start", "End")


def test_one_step_of_a_training_on_each_subset(run: Run, films: Path, tmp_path: Path) -> None:
    given = sources(run, films, tmp_path / "out", "copy")
    written = training_data.recipe(tmp_path, steps=1, tokens=512, visual_tokens=128, max_frames=4)
    stages = [
        {**written["stages"][0], "name": subset, "mixture": {subset: 1.0}, "steps": 1, "video_merge": 1}
        for subset in SUBSETS
    ]
    train(parse_recipe({**written, "sources": given, "stages": stages}, "test"), tmp_path / "trained")
    lines = [json.loads(line) for line in (tmp_path / "trained/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line and "loss" in line]
    assert len(steps) == len(SUBSETS)
    assert all(step["loss"] > 0 and not step.get("skipped") for step in steps)


def test_records_say_where_they_come_from(run: Run, films: Path, tmp_path: Path) -> None:
    sources(run, films, tmp_path / "out", "reference")
    records = [record for subset in SUBSETS for record in read_records(tmp_path / "out" / subset)]
    ids = dict(run.index.scan(["key", "id"]).collect().rows())
    of_clip = {record.id: record for record in records if record.source.file == "a.mp4/a.mp4#1"}
    assert set(of_clip) == {f"two films/{ids['a.mp4#1']}/{number}" for number in (0, 1, 2, 3, 5, 6, 7, 8)}
    dense = of_clip[f"two films/{ids['a.mp4#1']}/0"]
    assert dense.licence.name == "CC-BY-4.0"
    assert dense.synth is not None
    assert (dense.synth.model, dense.synth.prompt_sha256) == ("big-vlm", "0123abcd")
    assert dense.synth.frames == (0.0, 1.0)
    summary = of_clip[f"two films/{ids['a.mp4#1']}/1"]
    assert summary.synth is not None
    assert (summary.synth.model, summary.synth.frames) == ("some/llm", ())
    (medium,) = dense.media
    assert (medium.path, medium.start, medium.end, medium.is_cut) == ("a.mp4", *CUTS["a.mp4"][1], False)
    assert {record.licence.name for record in records if record.source.file.startswith("b")} == {"unknown"}
    tasks = {record.task for record in records}
    assert tasks == {"caption", "dense_caption", "qa", "qa_mc", "grounding", "stream"}
    choice = next(record for record in records if record.task == "qa_mc")
    assert choice.choices is not None
    assert (choice.choices.options, choice.choices.answer_index) == (("A dog.", "A white square."), 1)
    assert choice.turns[-1].text == "(B) A white square."


def test_control_tokens_in_facts_become_words(films: Path, tmp_path: Path) -> None:
    stored = facts()
    for key in stored["summary"]:
        stored["summary"][key] = {"summary": "It says <image> and <|im_end|>."}
    publish(clip_run(tmp_path / "run", films, stored), tmp_path / "out", subsets=("captions",))
    texts = {turn.text for record in read_records(tmp_path / "out/captions") for turn in record.turns}
    assert "It says < image > and < |im_end| >." in texts
    assert not any("<image>" in text for text in texts)


def test_records_name_the_frames_that_the_model_was_shown(films: Path, tmp_path: Path) -> None:
    stored = facts()
    for row in stored["frames"].values():
        row["frame_times"] = [0.0, 0.5, 1.0, 1.5]
    stages = [dict(stage) for stage in STAGES]
    stages[1]["max_frames"] = 2
    sources(clip_run(tmp_path / "run", films, stored, stages=stages), films, tmp_path / "out", "reference")
    shown = {record.synth.frames for record in read_records(tmp_path / "out/grounding") if record.synth}
    assert shown == {(0.0, 1.5)}
