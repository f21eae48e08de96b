"""LLaVA's form and its kin: what the published files look like, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.training.data.importers.turns import FILM_MARK, NO_MARK
from tests.model.training import training_data
from tests.model.training.data.importers.importing import import_entries, import_source


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


IMAGE = {"image": "coco/1.jpg", "conversations": turns("<image>\nWhat is it?", "A kettle.", "Its colour?", "Red.")}
AFTER = {"video": "000101_000150/1001.mp4", "conversations": turns("Describe it.\n<video>", "A man sits.")}  # Valley
TEXT = {"conversations": turns("In HTML, what is <image>?", "No tag.")}
TWO = {"image": ["a.jpg", "b.jpg"], "conversations": turns("First <image>, then <image>: what changed?", "Light.")}


def test_entries_come_back_as_they_were(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "llava", [IMAGE | {"id": 7}, AFTER | {"id": "v1"}, TWO])
    assert imported.rendered("llava") == [IMAGE, AFTER, TWO]
    assert imported.rendered("videollama3") == [IMAGE, AFTER, TWO]
    assert [record.id for record in imported.records] == ["set/7/1", "set/v1/2", "set/-/3"]
    assert [medium.type for record in imported.records for medium in record.media] == ["image", "video", *["image"] * 2]
    assert not imported.report.notes.counted


def test_image_mark_of_llava_video_means_the_film(tmp_path: Path) -> None:
    entry = {"id": "1", "data_source": "0_30_s_youtube_v0_1", "video": "liwei/x.mp4"}
    imported = import_entries(tmp_path, "llava", [entry | {"conversations": turns("<image>\nDescribe it.", "B.")}])
    (record,) = imported.records
    assert record.turns[0].parts[0].media == "v0"
    assert record.medium("v0").path == "liwei/x.mp4"
    assert record.source.subset == "0_30_s_youtube_v0_1"
    assert imported.rendered("videollama3") == [
        {"video": "liwei/x.mp4", "conversations": turns("<video>\nDescribe it.", "B.")}
    ]
    assert imported.report.notes.counted[FILM_MARK].count == 1


def test_media_without_a_mark_come_first_and_are_noted(tmp_path: Path) -> None:
    imported = import_entries(tmp_path, "llava", [{"image": "a.jpg", "conversations": turns("What?", "It.")}])
    assert imported.rendered("llava") == [{"image": "a.jpg", "conversations": turns("<image>What?", "It.")}]
    assert imported.report.notes.counted[NO_MARK].count == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"messages": [{"role": "user", "content": "<image>Q"}, {"role": "assistant", "content": "A"}], "images": ["a"]},
        {"instruction": "<image>Q", "input": "", "output": "A", "images": ["a"]},
        {"query": "<image>Q", "response": "A", "images": ["a"]},
        {"conversations": turns("<image>Q", "A"), "images": ["a"]},
    ],
    ids=["messages", "alpaca", "query", "sharegpt"],
)
def test_forms_of_other_trainers_say_the_same(tmp_path: Path, entry: dict[str, Any]) -> None:
    imported = import_entries(tmp_path, "llava", [entry])
    assert imported.rendered("llava") == [{"image": "a", "conversations": turns("<image>Q", "A")}]


def test_history_and_system_come_first(tmp_path: Path) -> None:
    entry = {"system": "Short.", "history": [["<image>Q", "A"]], "query": "And?", "response": "B", "images": ["a"]}
    (record,) = import_entries(tmp_path, "llava", [entry]).records
    assert [(turn.role, turn.text) for turn in record.turns] == [
        ("system", "Short."),
        ("user", "Q"),
        ("assistant", "A"),
        ("user", "And?"),
        ("assistant", "B"),
    ]


def test_embedded_images_of_parquet_become_files(tmp_path: Path) -> None:
    image = training_data.picture(0)
    rows = [
        {"id": "a", "image": {"bytes": image, "path": "a.png"}, "conversations": turns("<image>\nWhat?", "Red.")},
        {"id": "b", "image": None, "conversations": turns("What?", "Nothing.")},
        {"id": "c", "image": {"bytes": b"no image", "path": "c.png"}, "conversations": turns("<image>\nWhat?", "It.")},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    imported = import_source("llava", tmp_path / "train.parquet")
    medium = imported.records[0].media[0]
    assert (tmp_path / "train.parquet-imported" / medium.path).read_bytes() == image
    assert (medium.root, medium.present, medium.width, medium.height) == ("records", True, 56, 56)
    assert [record.source.original_id for record in imported.records] == ["a", "b"]
    assert imported.reasons == ["not an image: begins with 6e 6f 20 69 6d 61 67 65"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (
            {"image": ["a.jpg", "b.jpg"], "conversations": turns("<image> what?", "It.")},
            "placeholders do not match: none",
        ),
        (
            {"image": "a.jpg", "conversations": turns("<image><image>", "It.")},
            "placeholders do not match: more <image>",
        ),
        (TEXT, "placeholders do not match: more <image> than images"),
        ({"image": "a.jpg", "start": 1.0, "conversations": turns("<image>", "It.")}, "a clip, a rate or a stream"),
        ({"image": "a.jpg", "conversations": turns("<image>", " ")}, "empty answer: turn 1"),
        ({"image": "a.jpg", "conversations": turns("<image>What?")}, "roles out of order: turns go user"),
        ({"image": "a.jpg", "conversations": [{"from": "bot", "value": "x"}]}, "unknown speaker: 'bot'"),
        ({"image": "a.jpg"}, "no conversation: its keys are image"),
        ({"image": 7, "conversations": turns("<image>What?", "It.")}, "a medium without a path: 7"),
        ({"audio": "a.wav", "conversations": turns("What?", "It.")}, "`audio`: sound is not read"),
        ({"conversations": turns("What?", "\ud83d")}, "not valid Unicode: U+D83D"),
        ({"conversations": 7, "image": "a.jpg"}, "no conversation: 7"),
        ([1], "not an object: list"),
        ("{", "no JSON: "),
    ],
)
def test_broken_entry_is_rejected_and_the_rest_imported(tmp_path: Path, broken: Any, reason: str) -> None:
    imported = import_entries(tmp_path, "llava", [IMAGE, broken, AFTER])
    assert imported.rendered("llava") == [IMAGE, AFTER]
    assert len(imported.reasons) == 1
    assert imported.reasons[0].startswith(reason)
    assert imported.rejected[0]["line"] == 2
