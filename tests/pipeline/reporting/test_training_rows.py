"""Rows of training data: annotations, shards and runs, and what cannot be read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from core.errors import UserError
from manifests.record_files import RecordWriter
from manifests.shards import IMAGE
from pipeline.reporting.training_rows import TrainingRow, training_rows
from tests.conftest import MakeImages
from tests.model.training.data.importers.importing import import_entries
from tests.runs import run_here


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_annotations_give_texts_images_and_faults(tmp_path: Path, ending: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes of a")
    entries: list[Any] = [
        {"id": "x1", "image": ["a.jpg", "../b.jpg"], "conversations": turns("<image><image>\nWhat?", "This.")},
        {"video": ["films/v.mp4"], "conversations": turns("<video>When?", "Now.")},
        {"query": "q", "response": "r"},
    ]
    path = tmp_path / f"data{ending}"
    path.write_text(json.dumps(entries) if ending == ".json" else "\n".join(map(json.dumps, entries)))
    first, film, bad = training_rows(str(path))
    assert first.id == f"data{ending}:1 (id x1)"
    assert first.names == ("x1", "a.jpg", "../b.jpg")
    assert first.texts == ("<image><image>\nWhat?", "This.")
    assert first.images == (b"bytes of a",)
    assert "outside" in first.faults[0]
    assert (film.films, film.names, film.faults) == (1, ("films/v.mp4",), ())
    assert "ms-swift" in bad.faults[0]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_records_give_what_their_annotations_give(tmp_path: Path, form: Any) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    entries: list[Any] = [
        {"id": "x1", "image": ["a.png", "gone.png"], "conversations": turns("<image><image>\nWhat?", "This.")},
        {"video": "films/v.mp4", "conversations": turns("<video>When?", "Now.")},
    ]
    records = import_entries(tmp_path, "llava", entries, dataset="set").records
    (tmp_path / "set").mkdir()
    with RecordWriter(tmp_path / "set", form) as writer:
        for record in records:
            writer.write(record)
    first, film = training_rows(str(tmp_path / "set"), str(tmp_path))
    assert (first.id, first.names) == ("set/x1/1", ("x1", "a.png", "gone.png"))
    assert first.texts == ("\nWhat?", "This.")
    assert first.images == ((tmp_path / "a.png").read_bytes(),)
    assert first.faults == (f"set/x1/1: {tmp_path}/gone.png: no such file",)
    assert (film.names, film.texts, film.films, film.faults) == (("films/v.mp4",), ("When?", "Now."), 1, ())


@pytest.mark.parametrize(
    "conversation", ["What?", ["What?"], [{"from": "human", "value": 7}, *turns("What?", "This.")]]
)
def test_turns_that_are_no_text_are_faults(tmp_path: Path, conversation: object) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"conversations": conversation}))
    (row,) = training_rows(str(tmp_path / "data.jsonl"))
    assert row.faults == ("data.jsonl:1: 1 of its turns are no text",)


def test_shards_give_each_image_with_its_captions_once(tmp_path: Path) -> None:
    folder = tmp_path / "set/data"
    folder.mkdir(parents=True)
    frame = {
        "id": [5, 6],
        "image": [{"bytes": b"five", "path": "5.jpg"}, {"bytes": None, "path": "6.jpg"}],
        "short_caption": ["A cat.", "A dog."],
        "conversations": [turns("<image>\nDescribe.", text) for text in ("A cat.", "A dog.")],
        "url": ["http://a/5.jpg", None],
    }
    pl.DataFrame(frame).write_parquet(folder / "shard-00000.parquet")
    assert IMAGE.names == ["bytes", "path"]
    five, six = training_rows(str(tmp_path / "set"))
    texts = ("A cat.", "<image>\nDescribe.")
    assert five == TrainingRow("5", ("http://a/5.jpg",), texts, (b"five",))
    assert six.images == ()
    assert six.faults == ("data/shard-00000.parquet: id 6: no image",)


@pytest.mark.usefixtures("here")
def test_run_gives_the_kept_images(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 4)
    stage = {"stage": "aspect_ratio", "keep": {"min_side": 21}}
    run_here({"pool": {"images": str(pool)}, "stages": [stage]}, tmp_path / "run")
    (pool / "000002.jpg").unlink()
    rows = {row.names[0]: row for row in training_rows(str(tmp_path / "run"))}
    assert sorted(rows) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert rows["000003.jpg"].images == ((pool / "000003.jpg").read_bytes(),)
    assert "000002.jpg" in rows["000002.jpg"].faults[0]


def test_what_is_no_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run and no shards"):
        training_rows(str(tmp_path))
    (tmp_path / "shard-00000.tar").write_bytes(b"")
    with pytest.raises(UserError, match="shards are tars"):
        training_rows(str(tmp_path))
    (tmp_path / "shard-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="copy it again"):
        list(training_rows(str(tmp_path)))
