"""What is written of an import, in a trainer's form too."""

from __future__ import annotations

import json
from pathlib import Path

from core.records import Medium, Part, Record, Source, Turn
from model.training.data.importers.writer import Writer


def record(root: str) -> Record:
    image = Medium.model_validate({"key": "i0", "type": "image", "path": f"{root}.png", "root": root})
    turns = (Turn(role="user", parts=(Part(media="i0"),)), Turn(role="assistant", parts=(Part(text="It."),)))
    return Record(id=f"set/{root}/1", source=Source(dataset="set"), media=(image,), turns=turns)


def test_form_of_a_trainer_has_media_of_one_folder(tmp_path: Path) -> None:
    with Writer(tmp_path, "jsonl", "llava") as writer:
        reasons = [writer.write(record(root)) for root in ("records", "media", "records")]
    assert [len(each) for each in reasons] == [0, 1, 0]
    assert "beside files of --media" in reasons[1][0]
    written = [json.loads(line)["image"] for line in (tmp_path / "llava.jsonl").read_text().splitlines()]
    assert written == ["records.png", "records.png"]
    assert len((tmp_path / "records-00000.jsonl").read_text().splitlines()) == 3
