"""COCO-like files are joined without being in memory; a row, not a file, may be too large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from model.training.data.importers import readers
from model.training.data.importers.format import Unreadable
from model.training.data.importers.joined_files import Joined


def write(folder: Path, images: list[Any], notes: list[Any]) -> Path:
    file = folder / "x.json"
    file.write_text(json.dumps({"images": images, "annotations": notes, "categories": [{"id": 1, "name": "cup"}]}))
    return file


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4)), st.sets(st.integers(0, 4), min_size=1))
def test_every_annotation_is_in_one_row(tmp_path: Path, of: list[int], images: set[int]) -> None:
    notes = [{"id": number, "image_id": image} for number, image in enumerate(of)] or [{"id": 0, "image_id": 9}]
    with Joined(write(tmp_path, [{"id": image} for image in images], notes)) as joined:
        rows = list(joined.by_image())
    seen = [note for row in rows if isinstance(row.value, dict) for note in row.value["annotations"]]
    lost = [json.loads(row.value.text) for row in rows if isinstance(row.value, Unreadable)]
    assert sorted(note["id"] for note in [*seen, *lost]) == [note["id"] for note in notes]
    assert all(note["image_id"] not in images for note in lost)


def test_file_may_be_longer_than_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LARGEST", 200_000)
    notes = [{"id": number, "image_id": 1, "segmentation": [[0.5] * 1000]} for number in range(200)]  # 1 MB
    with Joined(write(tmp_path, [{"id": 1}], notes)) as joined:
        assert [len(row.value["annotations"]) for row in joined.by_image()] == [200]
        assert joined.names == {"1": "cup"}


def test_row_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LARGEST", 200_000)
    with pytest.raises(UserError, match="a value of more than"):
        Joined(write(tmp_path, [{"id": 1}], [{"id": 1, "image_id": 1, "segmentation": [[0.5] * 100_000]}]))


def test_hostile_values_reject_themselves_alone(tmp_path: Path) -> None:
    notes = '[{"id": 1, "image_id": 1, "area": NaN}, {"id": 2, "image_id": [1]}, {"id": 3, "image_id": "\\ud83d"}, 4]'
    file = tmp_path / "x.json"
    file.write_text(f'{{"images": [{{"id": 1}}], "annotations": {notes}}}')
    with Joined(file) as joined:
        first, *lost = joined.by_image()
        assert [note["id"] for note in first.value["annotations"]] == [1]
        assert [row.value.reason for row in lost] == [f"no image of an annotation: annotation {n}" for n in (2, 3, 4)]
        assert joined.annotation("\ud83d") is None


def test_value_that_is_nested_too_deeply_ends_its_file(tmp_path: Path) -> None:
    deep = "[" * 5000 + "]" * 5000
    file = tmp_path / "x.json"
    file.write_text(
        f'{{"images": [{{"id": 1}}], "annotations": [{{"id": 1, "image_id": 1}}, {{"id": 2, "x": {deep}}}]}}'
    )
    with pytest.raises(UserError, match="no JSON behind entry 2: nested too deeply"):
        Joined(file)


def test_part_that_comes_twice_is_read_twice(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 2}], "images": [{"id": 2}]}')
    with Joined(file) as joined:
        assert [len(row.value["annotations"]) for row in joined.by_image()] == [0, 1]


def test_number_of_many_digits_is_an_error_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(f'{{"images": [{{"id": {"9" * 5000}}}], "annotations": [{{"id": 1, "image_id": 1}}]}}')
    with pytest.raises(UserError, match="no JSON behind entry"):
        Joined(file)
