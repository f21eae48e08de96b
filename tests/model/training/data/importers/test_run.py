"""The import around a format: ids, provenance, media, checks, and that no row is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadSampleError
from core.records import Licence, Region, Span
from model.training.data.importers import registry
from model.training.data.importers.format import Draft, Format, Options, Row, drafts_of
from model.training.data.importers.run import row_hash
from model.training.data.importers.turns import assistant, image, user, video
from tests.model import clips
from tests.model.training import training_data
from tests.model.training.data.importers.importing import import_entries


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


def shown(path: str, kind: str = "image") -> dict[str, Any]:
    return {kind: path, "conversations": turns(f"<{kind}>\nWhat?", "It.")}


def _read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """A format of this test: each entry names what the records have."""
    if row.entry.get("error"):
        raise {"key": KeyError, "type": TypeError, "bad": BadSampleError}[row.entry["error"]]("of: the format")

    def make(fields: dict[str, Any]) -> Draft:
        film = video("v.mp4", duration=10.0)
        still = image("a.jpg", width=100, height=50)
        turn = assistant(
            fields.get("answer", "It."),
            spans=[Span(media="v0", start=start, end=end) for start, end in fields.get("spans", [])],
            regions=[Region(media="i0", box=box, system="pixel_xywh") for box in fields.get("boxes", [])],
        )
        licence = Licence(name=fields["licence"]) if "licence" in fields else None
        return Draft(
            [user(still, *fields.get("shown", [film]), fields.get("question", "What?")), turn],
            [still, film],
            row.entry.get("id"),
            licence=licence,
        )

    yield from drafts_of(row.entry.get("records", []), make)


@pytest.fixture(autouse=True)
def format_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    formats = {**registry.all_formats(), "test": Format("test", "a test's", _read, lambda entry: "records" in entry)}
    monkeypatch.setattr(registry, "all_formats", lambda: formats)


def one(**fields: Any) -> dict[str, Any]:
    return {"records": [fields]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"spans": [(2.0, 11.5)]}, "span outside of the film: turn 1 has 2-11.5 s of 10 s"),
        ({"spans": [(5.0, 2.0)]}, "span 5-2 s ends before it starts"),
        ({"spans": [(float("nan"), 2.0)]}, "Input should be "),
        (
            {"boxes": [(50, 10, 60, 10)]},
            "box [50.0, 10.0, 60.0, 10.0] (pixel_xywh) reaches outside of a picture of 100x50",
        ),
        ({"answer": "\n"}, "empty answer: turn 1"),
        ({"shown": []}, "a medium in no turn: v0"),
    ],
)
def test_record_that_is_wrong_is_rejected(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    entry = {"records": [{"question": "a"}, fields, {"question": "b"}]}
    imported = import_entries(tmp_path, "test", [entry, one(**fields)])
    assert [record.turns[0].text for record in imported.records] == ["a", "b"]
    assert all(each.startswith(reason) for each in imported.reasons)
    assert [row.get("record") for row in imported.rejected] == [1, 0]
    report = imported.report
    assert (report.rows, report.rows_out, report.rows_rejected, report.records, report.records_rejected) == (
        2,
        1,
        1,
        2,
        2,
    )


def test_error_of_a_row_ends_no_import_and_shows_its_type(tmp_path: Path) -> None:
    entries = [{"error": "key"}, {"error": "type"}, {"error": "bad"}, {"records": []}, one()]
    imported = import_entries(tmp_path, "test", entries)
    assert imported.reasons == [
        "KeyError: 'of: the format'",
        "TypeError: of: the format",
        "of: the format",
        "no record in it",
    ]
    assert len(imported.records) == 1
    assert imported.rejected[2] | {"row": ""} == {
        "file": "entries.jsonl",
        "line": 3,
        "key": "",
        "reason": "of: the format",
        "row": "",
    }
    assert json.loads(imported.rejected[2]["row"]) == {"error": "bad"}


def test_record_says_where_it_comes_from(tmp_path: Path) -> None:
    entry = {"id": 7, "records": [{}, {"licence": "CC0"}]}
    licence = Licence(name="MIT")
    first, second = import_entries(tmp_path, "test", [one(), entry], licence=licence, split="train").records[1:]
    assert (first.id, second.id) == ("set/7/2.0", "set/7/2.1")
    assert first.source.model_dump() == {
        "dataset": "set",
        "subset": "",
        "split": "train",
        "original_id": "7",
        "url": "",
        "file": "entries.jsonl",
        "line": 2,
        "sha256": hashlib.sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
    }
    assert (first.licence.name, second.licence.name) == ("MIT", "CC0")


def test_same_ids_of_the_data_set_give_different_ids(tmp_path: Path) -> None:
    entries = [{"id": 1, "records": [{}]}, {"id": "1", "records": [{}]}]
    assert [record.id for record in import_entries(tmp_path, "test", entries).records] == ["set/1/1", "set/1/2"]


def test_repeated_question_about_the_same_media_is_counted(tmp_path: Path) -> None:
    entries = [one(), one(question="Other?"), one(answer="Another."), one()]
    note = import_entries(tmp_path, "test", entries).report.notes.counted["media and question as in an earlier record"]
    assert (note.count, note.example) == (2, "records 1 and 3")


def test_span_just_behind_the_end_is_a_note(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "test", [one(spans=[(2.0, 10.5)])])
    assert imported.report.notes.counted["a span that ends up to N s behind its film"].count == 1


def test_media_are_looked_at_and_missing_ones_are_a_state(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(training_data.picture(0))
    imported = import_entries(tmp_path, "llava", [shown("a.png"), shown("gone.png"), shown("http://x/b.png")], tmp_path)
    first, second, third = (record.media[0] for record in imported.records)
    assert (first.present, first.width, first.height) == (True, 56, 56)
    assert (second.present, third.present) == (False, False)
    assert imported.report.media == {"present": 1, "missing": 2, "not looked at": 0}
    assert imported.report.notes.counted["image missing"].count == 2


def test_header_of_a_film_is_read_if_asked_for(tmp_path: Path) -> None:
    from model.training.data.importers.media_state import MediaFolder

    clips.write(tmp_path / "v.mp4", [k / 10 for k in range(30)])
    medium = MediaFolder(tmp_path, "all").look(video("v.mp4"))
    assert (medium.width, medium.height, medium.present) == (96, 64, True)
    assert medium.duration == pytest.approx(3.0, abs=0.2)
    assert MediaFolder(tmp_path).look(video("v.mp4")) == video("v.mp4", present=True)
    with pytest.raises(BadSampleError, match=r"clip outside of the film: v.mp4 has "):
        MediaFolder(tmp_path, "all").look(video("v.mp4", start=1.0, end=9.0))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (shown("clip.mp4"), "media of another kind: clip.mp4 is a film, not an image"),
        (shown("a.png", "video"), "media of another kind: a.png is an image, not a film"),
        (shown("frames"), "media of another kind: frames is a folder, not an image"),
        (shown("broken.png"), "media unreadable: broken.png: "),
        (shown("../outside.png"), "media unreadable: ../outside.png: lies outside of"),
        (shown("link.png"), "media unreadable: link.png: lies outside of"),
        (shown("", "video"), "a mark"),
    ],
)
def test_medium_that_cannot_be_used_is_rejected(tmp_path: Path, entry: Any, reason: str) -> None:
    folder = tmp_path / "media"
    (folder / "frames").mkdir(parents=True)
    for name in ("a.png", "../outside.png", "frames/1.png"):
        (folder / name).write_bytes(training_data.picture(0))
    (folder / "broken.png").write_bytes(training_data.picture(0)[:20])
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 40)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    imported = import_entries(tmp_path, "llava", [entry, shown("a.png"), shown("frames", "video")], folder)
    assert len(imported.records) == 2
    assert imported.records[1].media[0].is_frame_folder
    assert imported.reasons[0].startswith(reason) or reason == "a mark"


def test_limit_reads_that_many_rows_and_says_so(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "test", [one()] * 3, limit=2)
    assert (imported.report.rows, imported.report.limited) == (2, True)
    (tmp_path / "b").mkdir()
    assert not import_entries(tmp_path / "b", "test", [one()] * 3, limit=3).report.limited


def test_lengths_and_languages_are_counted(tmp_path: Path) -> None:
    german = "Das ist ein längerer deutscher Satz über einen Hund im Garten."
    imported = import_entries(tmp_path, "test", [one(answer=german)], count_tokens=lambda text: len(text.split()))
    about = imported.report.about
    assert about["languages"] == {"de": 1}
    assert about["characters"]["sum"] == len(german) + len("What?\n")
    assert about["tokens"]["largest"] == 12


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "image", "video", "conversations", "messages", "system"), JSON)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(JSON | ENTRY, min_size=1, max_size=4),
    format_=st.sampled_from(["llava", "videollama3", "chat", "vl3syn7m"]),
)
def test_no_row_of_any_content_is_lost(tmp_path_factory: Any, entries: list[Any], format_: str) -> None:
    entries.append({})  # a last line that is a list would be an index
    lines = [json.dumps(entry) for entry in entries]
    imported = import_entries(tmp_path_factory.mktemp("in"), format_, lines)  # conservation is checked there
    assert imported.report.rows == len(entries)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_hash_of_a_row_does_not_depend_on_the_order_of_keys(row: dict[str, Any]) -> None:
    assert row_hash(row) == row_hash(dict(reversed(list(row.items()))))
