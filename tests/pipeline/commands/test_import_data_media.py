"""`vl3syn import` where media lie elsewhere than the annotations: --media, --root, and a wrong folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.errors import UserError
from manifests.record_files import read_records
from pipeline.commands.app import app
from tests.model.training import training_data


def vl3syn(*args: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, args)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Annotations of an image in a folder that is a link, and of one by its whole path."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "media").mkdir()
    (tmp_path / "disk/1.png").write_bytes(training_data.picture(1))
    (tmp_path / "media/coco").symlink_to(tmp_path / "disk")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A kettle."}]
    entries = [{"image": path, "conversations": turns} for path in ("coco/1.png", str(tmp_path / "disk/1.png"))]
    (tmp_path / "set.json").write_text(json.dumps(entries))
    return tmp_path / "set.json"


def test_media_behind_links_are_taken_from_a_root(source: Path, tmp_path: Path) -> None:
    refused = vl3syn("llava", source, "--media", tmp_path / "media", "--out", tmp_path / "a")
    assert isinstance(refused.exception, UserError)
    assert "(--root of eval and import)" in str(refused.exception)
    result = vl3syn(
        *("llava", source, "--media", tmp_path / "media", "--root", tmp_path / "disk", "--out", tmp_path / "b")
    )
    assert result.exit_code == 0, result.output
    media = [record.media[0] for record in read_records(tmp_path / "b")]
    assert [(medium.path, medium.present) for medium in media] == [
        ("coco/1.png", True),
        (str(tmp_path / "disk/1.png"), True),
    ]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--root", "."], "--root without --media: give the folder that paths are relative to"),
        (["--media", ".", "--root", "gone"], "--root gone: no such folder"),
        (["--media", "gone"], "--media gone: no such folder"),
    ],
)
def test_folder_of_media_that_is_none_is_one_line(source: Path, tmp_path: Path, args: list[str], reason: str) -> None:
    result = vl3syn("llava", source, *args, "--out", tmp_path / "out")
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == reason


def test_wrong_folder_is_told_where_the_first_was_looked_for(source: Path, tmp_path: Path) -> None:
    source.write_text(json.dumps(json.loads(source.read_text())[:1]))
    (tmp_path / "empty").mkdir()
    result = vl3syn("llava", source, "--media", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert f"not one medium is there: the first was looked for at {tmp_path / 'empty/coco/1.png'}" in said
    there = vl3syn(*("llava", source, "--media", tmp_path / "media", "--root", tmp_path / "disk", "--dry-run"))
    assert "not one medium" not in there.output
