from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.data.importers.registry import sniff
from tests.model.training.data.importers.importing import import_entries

TAG = "QA_GT_caption_based_noisy"
FLAT = {"q": "What is he doing?", "a": "He folds a map.", "video_id": "v_AbCdEfGhIjK"}


def converted(question: str, answer: str = "It.") -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "v_x", "video": "v_x.pkl", "conversations": turns}


def test_internal_mark_is_taken_off_and_nothing_else(tmp_path: Path) -> None:
    answers = [f"He folds a map.\n{TAG}", f"A QA_GT map.{TAG}\n", "He folds a map.\n"]
    records = import_entries(tmp_path, "videochatgpt", [FLAT | {"a": answer} for answer in answers]).records
    assert [record.turns[1].text for record in records] == ["He folds a map.", "A QA_GT map.\n", "He folds a map.\n"]
    assert [record.transforms for record in records] == [("strip_tag",), ("strip_tag",), ()]


def test_mark_in_a_question_stays(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "videochatgpt", [FLAT | {"q": f"What is {TAG}?"}]).records
    assert record.turns[0].text == f"What is {TAG}?"


def test_film_of_an_id_is_looked_up_with_its_ending(tmp_path: Path) -> None:
    (tmp_path / "v_AbCdEfGhIjK.mkv").write_bytes(b"film")
    imported = import_entries(tmp_path, "videochatgpt", [FLAT, FLAT | {"video_id": "v_gone"}], media=tmp_path)
    media = [record.media[0] for record in imported.records]
    assert [(medium.path, medium.present) for medium in media] == [("v_AbCdEfGhIjK.mkv", True), ("v_gone", False)]
    assert imported.records[0].source.original_id == "v_AbCdEfGhIjK"
    assert not imported.rejected


def test_ending_may_be_given_without_media(tmp_path: Path) -> None:
    (record,) = import_entries(tmp_path, "videochatgpt", [FLAT], options={"ending": ".mp4"}).records
    assert record.media[0].path == "v_AbCdEfGhIjK.mp4"


def test_names_of_features_mean_films_and_marks_stay_in_place(tmp_path: Path) -> None:
    rows = [converted("What?\n<video>"), converted("<video>\nWhat?", f"It.\n{TAG}")]
    imported = import_entries(tmp_path, "videochatgpt", rows)
    assert imported.rendered("llava") == [
        {"video": "v_x", "conversations": rows[0]["conversations"]},
        {"video": "v_x", "conversations": converted("<video>\nWhat?")["conversations"]},
    ]
    assert imported.records[1].transforms == ("film_of_features", "strip_tag")


def test_ids_that_are_not_unique_give_records_of_their_own(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "videochatgpt", [FLAT, FLAT | {"q": "Why?"}])
    assert [record.id for record in imported.records] == ["set/v_AbCdEfGhIjK/1", "set/v_AbCdEfGhIjK/2"]


@pytest.mark.parametrize("row", [FLAT, converted("<video>\nWhat?")])
def test_auto_takes_both_forms(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "train.json").write_text(json.dumps([row, row]))
    assert sniff(tmp_path / "train.json").name == "videochatgpt"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (FLAT | {"a": f"\n{TAG}"}, "empty answer: turn 1"),
        (FLAT | {"a": None}, "no text in `a`: None"),
        ({"q": "What?", "a": "It."}, "no text in `video_id`: None"),
        (FLAT | {"video_id": ""}, "a medium without a path: ''"),
        (converted("<video><video>"), "placeholders do not match: more <video> than videos"),
        (converted("<video>") | {"conversations": "none"}, "no conversation: 'none'"),
        ("[1]", "not an object: list"),
    ],
)
def test_broken_row_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "videochatgpt", [FLAT, broken, FLAT])
    assert len(imported.records) == 2
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 2
