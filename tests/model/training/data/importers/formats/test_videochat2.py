from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.records import Choices
from model.training.data.importers.formats.videochat2 import EARLIER_OPTIONS, LATER_INSTRUCTION
from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_entries, import_source


def entry(*pairs: dict[str, str], **others: Any) -> dict[str, Any]:
    return {"video": "abc/x.mp4", "QA": list(pairs), **others}


CHOICE = {"i": "Look at the clip.", "q": "Who is it? \nOptions:\n(A) a man\n(B) a boy", "a": "Answer: (B) a boy"}
CAPTION = {"i": "Describe the clip.", "q": "", "a": "A boy runs."}
PLAIN = {"q": "What?", "a": "It."}


def test_options_and_the_letter_become_choices(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "videochat2", [entry(CHOICE)]).records
    assert record.choices == Choices(options=("a man", "a boy"), answer_index=1)
    assert [(turn.role, turn.text) for turn in record.turns] == [
        ("system", CHOICE["i"]),
        ("user", CHOICE["q"]),
        ("assistant", CHOICE["a"]),
    ]
    assert record.task == "qa_mc"


def test_prefix_of_answers_is_taken_off_when_asked(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "videochat2", [entry(CHOICE), entry(PLAIN)], options={"prefix": "strip"})
    assert [record.turns[-1].text for record in imported.records] == ["(B) a boy", "It."]
    assert [record.transforms for record in imported.records] == [("strip_answer_prefix",), ()]


def test_answer_without_a_letter_is_found_by_its_text(tmp_path: Path) -> None:
    rows = [entry(CHOICE | {"a": "a boy"}), entry(CHOICE | {"a": "nobody"})]
    records = import_entries(tmp_path, "videochat2", rows).records
    assert [record.choices and record.choices.answer_index for record in records] == [1, None]


def test_empty_question_means_the_instruction(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "videochat2", [entry(CAPTION)]).records
    assert [(turn.role, turn.text) for turn in record.turns] == [("user", CAPTION["i"]), ("assistant", "A boy runs.")]
    assert record.transforms == ("instruction_as_question",)


def test_clip_keeps_the_clock_of_its_film(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "videochat2", [entry(PLAIN, start=3.0, end="9.5")])
    (film,) = imported.records[0].media
    assert (film.start, film.end, film.length, film.is_cut) == (3.0, 9.5, 6.5, False)
    assert imported.rendered("videollama3")[0]["start"] == 3.0


def test_folder_of_frames_image_and_text_alone(tmp_path: Path) -> None:
    picture, text = {"image": "a.jpg", "QA": [PLAIN]}, {"QA": [CAPTION]}
    imported = import_entries(tmp_path, "videochat2", [entry(PLAIN), picture, text], options={"media": "img"})
    media = [[(medium.type, medium.is_frame_folder) for medium in record.media] for record in imported.records]
    assert media == [[("video", True)], [("image", False)], []]


def test_task_and_subset_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set/video/caption/textvr"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps([entry(CAPTION)]))
    (record,) = import_source("videochat2", tmp_path / "set").records
    assert (record.source.subset, record.task) == ("video/caption/textvr", "caption")


def test_what_a_record_cannot_say_is_counted(tmp_path: Path) -> None:
    rows = [entry(CHOICE, CHOICE), entry(CHOICE, PLAIN | {"i": "Be short."})]
    imported = import_entries(tmp_path, "videochat2", rows)
    assert imported.report.notes.counted[EARLIER_OPTIONS].count == 2
    assert imported.report.notes.counted[LATER_INSTRUCTION].count == 1
    assert [record.choices is None for record in imported.records] == [False, True]


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        (entry(PLAIN), "videochat"),
        (entry(CHOICE), "videochat2"),
        (entry(PLAIN, start=1.0, end=2.0), "videochat2"),
        ({"image": "a.jpg", "QA": [PLAIN]}, "videochat2"),
    ],
)
def test_auto_tells_videochat_from_videochat2(tmp_path: Path, row: dict[str, Any], format_: str) -> None:
    (tmp_path / "train.json").write_text(json.dumps([row]))
    assert sniff(tmp_path / "train.json").name == format_


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (entry(CHOICE | {"a": "Answer: (C) a girl"}), "an answer outside of its options: (C) of 2"),
        (entry(PLAIN, start=9.0, end=3.0), "the clip ends at 3 s, before it starts at 9 s"),
        (entry(PLAIN, start="soon"), "no time in `start`: 'soon'"),
        (entry(PLAIN, start=float("nan")), "no time in `start`: nan"),
        (entry(PLAIN, image="a.jpg"), "film and image: "),
        ({"image": "a.jpg", "QA": [PLAIN], "end": 2.0}, "times without a film: "),
        ({"video": "a.mp4", "QA": []}, "no conversation: `QA` is empty"),
        (entry(PLAIN | {"i": 3}), "no text in `i`: 3"),
        (entry(CHOICE | {"a": ""}), "empty answer: turn 2"),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "videochat2", [entry(PLAIN), broken, entry(CHOICE)])
    assert len(imported.records) == 2
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 2
