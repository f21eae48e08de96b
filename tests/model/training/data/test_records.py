"""Records as a training source: the samples are those of the annotations that the records become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadSampleError, UserError
from core.records import Medium, Part, Record, Turn
from core.records import Source as Origin
from manifests.record_files import RecordWriter
from manifests.renderers import to_videollama3
from model import Processor
from model.training.data.annotations import AnnotationSource
from model.training.data.records import RecordConfig, RecordSource
from tests.model import clips
from tests.model.training.data.importers.importing import import_entries


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


ENTRIES = [
    {"image": "a.png", "conversations": turns("<image>\nWhat? ", " It. ")},
    {"image": ["a.png", "b.png"], "conversations": turns("See <image> and\n<image>\n!", "It.", "And?", "Yes.")},
    {"image": "a.png", "conversations": turns("Without a mark?", "It.", "And this <b>?", "Yes.")},
    {"video": "clip.mp4", "fps": 2, "start": 1.5, "end": 3.0, "conversations": turns("<video>\nWhen?", "1.0-2.0 s")},
    {"video": "clip.mp4", "start": 1.5, "times_from_start": True, "conversations": turns("When? <video>", "0.0-1.0 s")},
    {"video": "frames", "frames_fps": 3, "fps": 1, "conversations": turns("<video>", "It.")},
    {"conversations": [{"from": "system", "value": " Short. "}, *turns("What?", "It.", "Unanswered?")]},
    {"conversations": [{"from": "gpt", "value": "Hello."}, *turns("What?", "It.")], "references": ["It.", "That."]},
    {"stream": True, "video": "clip.mp4", "start_time": 0.5, "end_time": 4.0, "conversation": [
        {"role": "user", "content": " Tell <image> me. ", "time": 1.0},
        {"role": "assistant", "content": "Now.", "time": 2.5}]},
]  # fmt: skip


def imported(folder: Path, entries: list[Any]) -> list[Record]:
    result = import_entries(folder, "videollama3", entries)
    assert not result.rejected
    return result.records


def written(folder: Path, records: list[Record], form: Any = "jsonl") -> Path:
    out = folder / f"records-{form}"
    out.mkdir()
    with RecordWriter(out, form, 4) as writer:
        for record in records:
            writer.write(record)
    return out


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_samples_equal_those_of_the_rendered_annotations(media: Path, form: str) -> None:
    records = imported(media, ENTRIES)
    source = RecordSource("r", str(written(media, records, form)), str(media))
    lines = [json.dumps(to_videollama3(record)) for record in records]
    (media / "rendered.jsonl").write_text("\n".join(lines))
    annotations = AnnotationSource("r", str(media / "rendered.jsonl"))
    assert source.rows == annotations.rows == len(ENTRIES)
    for row in range(len(ENTRIES)):
        ours, theirs = source.sample(row), annotations.sample(row)
        assert (ours.conversation, ours.references) == (theirs.conversation, theirs.references)
    assert source.sample(8).name == f"r: records-00002.{form} record 1 (id set/-/9)"


def test_mark_in_the_text_of_a_record_is_text(media: Path) -> None:
    entry = {"messages": [{"role": "user", "content": "What is <image>?"}, {"role": "assistant", "content": "A tag."}]}
    records = import_entries(media, "chat", [entry]).records
    sample = RecordSource("r", str(written(media, records))).sample(0)
    assert sample.conversation[0]["content"] == ["What is <image>?"]


def test_missing_medium_is_a_bad_sample(media: Path) -> None:
    source = RecordSource("r", str(written(media, imported(media, ENTRIES[:2]))), str(media))
    (media / "b.png").unlink()
    assert source.sample(0).conversation
    with pytest.raises(
        BadSampleError, match=r"^r: records-00000.jsonl record 2 \(id set/-/2\): .*b.png: no such file$"
    ):
        source.sample(1)


def test_medium_outside_of_the_folder_needs_a_root(media: Path) -> None:
    (media / "in").mkdir()
    path = str(written(media, imported(media, [ENTRIES[0] | {"image": "../a.png"}])))
    with pytest.raises(BadSampleError, match="lies outside of"):
        RecordSource("r", path, str(media / "in")).sample(0)
    config = RecordConfig(records=path, media=str(media / "in"), roots=(str(media),))
    assert config.open("r").sample(0).conversation[0]["content"][0]["image"] == str(media / "a.png")


def test_medium_that_no_turn_shows_is_a_bad_sample(media: Path) -> None:
    (record,) = imported(media, [ENTRIES[0]])
    question = record.turns[0].model_copy(update={"parts": record.turns[0].parts[1:]})
    hidden = record.model_copy(update={"turns": (question, *record.turns[1:])})
    with pytest.raises(BadSampleError, match="the medium i0 is in no turn"):
        RecordSource("r", str(written(media, [hidden])), str(media)).sample(0)


def test_answer_that_is_not_learned_is_a_bad_sample(media: Path) -> None:
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 0}]
    records = import_entries(media, "chat", [{"messages": messages}]).records
    with pytest.raises(BadSampleError, match="turn 1: answers are learned, all of them"):
        RecordSource("r", str(written(media, records))).sample(0)


@pytest.mark.parametrize("name", ["none", "records-00000.jsonl", "records-00000.parquet"])
def test_source_without_records_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"^r: .*(no records|no whole Parquet file)"):
        RecordConfig(records=str(tmp_path)).open("r")


def test_fingerprint_changes_with_the_records(media: Path) -> None:
    path = written(media, imported(media, ENTRIES))
    before = RecordConfig(records=str(path)).fingerprint()
    assert RecordConfig(records=str(path)).fingerprint() == before
    (path / "records-00002.jsonl").write_text((path / "records-00000.jsonl").read_text())
    assert RecordConfig(records=str(path)).fingerprint() != before


def test_times_of_a_clip_count_from_its_start(tmp_path: Path) -> None:
    clips.write(tmp_path / "clip.mp4", [k / 2 for k in range(12)])
    processor = Processor.tiny()
    entries = [
        {"video": "clip.mp4", "start": 2.0, **more, "conversations": turns("<video>\nWhen?", "Now.")}
        for more in ({}, {"times_from_start": True})
    ]
    source = RecordSource("r", str(written(tmp_path, imported(tmp_path, entries))), str(tmp_path))
    film, clip = (processor.tokenizer.decode(processor(source.sample(row).conversation).input_ids) for row in range(2))
    assert "Time 2.0s:" in film
    assert "Time 0.0s:" not in film
    assert "Time 0.0s:" in clip


def test_lines_without_a_record_are_passed_over(media: Path) -> None:
    path = written(media, imported(media, ENTRIES[:3])) / "records-00000.jsonl"
    first, second, third = path.read_text().splitlines()
    path.write_text(f"\n  \n{first}\n \t\n\r\n{second.replace(',', ', ' + chr(13), 1)}\n{third}\n \n")
    source = RecordSource("r", str(path), str(media))
    names = [source.sample(row).name.partition("(")[2] for row in range(source.rows)]
    assert names == ["id set/-/1)", "id set/-/2)", "id set/-/3)"]


def test_labels_say_what_scores_can_be_told_by(media: Path) -> None:
    (record,) = imported(media, ENTRIES[:1])
    labelled = record.model_copy(update={"task": "qa", "aspect": "time_order"})
    sample = RecordSource("r", str(written(media, [labelled])), str(media)).sample(0)
    assert sample.labels == {"dataset": "set", "task": "qa", "aspect": "time_order"}


_TEXTS = st.text(max_size=5) | st.sampled_from(["<b>", " x ", "\n", "\u2028"])


@st.composite
def odd_records(draw: st.DrawFn) -> Record:
    """Records of up to two media, with turns of any role and any parts."""
    media = []
    for number in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            media.append(Medium(key=f"i{number}", type="image", path="a.png"))
            continue
        start, length = draw(st.none() | st.floats(0, 2)), draw(st.none() | st.floats(0.01, 2))
        end = None if length is None else (start or 0.0) + length
        flags = {"is_cut": draw(st.booleans()), "clock": draw(st.sampled_from(["clip", "film"]))}
        media.append(Medium.model_validate(
            {"key": f"v{number}", "type": "video", "path": "clip.mp4", "start": start, "end": end, **flags}
        ))  # fmt: skip
    left, said = list(media), []
    for role in draw(st.lists(st.sampled_from(["user", "assistant", "system"]), min_size=1, max_size=4)):
        shown = [Part(media=left.pop(0).key) for _ in range(draw(st.integers(0, 2))) if role == "user" and left]
        parts = [*shown, *(Part(text=text) for text in draw(st.lists(_TEXTS, max_size=2)))]
        said.append(Turn.model_validate({"role": role, "parts": tuple(draw(st.permutations(parts)))}))
    return Record(id="s/1/1", source=Origin(dataset="s"), media=tuple(media), turns=tuple(said))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_records())
def test_odd_record_is_what_its_rendered_annotation_is(media: Path, record: Record) -> None:
    (media / "odd.jsonl").write_text(record.to_json() + "\n")
    try:
        rendered = to_videollama3(record)
    except BadSampleError:
        return
    (media / "rendered.jsonl").write_text(json.dumps(rendered))
    sources = (
        RecordSource("r", str(media / "odd.jsonl"), str(media)),
        AnnotationSource("r", str(media / "rendered.jsonl")),
    )
    conversations = []
    for source in sources:
        try:
            conversations.append(source.sample(0).conversation)
        except BadSampleError:
            conversations.append(())
    assert conversations[0] == conversations[1]
