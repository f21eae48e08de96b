"""Names of films and splits, and tables beside annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from model.training.data.importers.film_names import length_of, path_of, split_of


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("all_data_val.json", "val"),
        ("highlight_train_release.jsonl", "train"),
        ("sub/test.jsonl", "test"),
        ("latest_training.json", ""),
        ("entries.jsonl", ""),
    ],
)
def test_split_is_a_word_of_the_name(file: str, split: str) -> None:
    assert split_of(file) == split


def test_pattern_takes_fields_and_no_attributes() -> None:
    assert path_of({"path": "{recipe}/{id}.mkv"}, "{id}.mp4", id="{recipe}", recipe=101) == "101/{recipe}.mkv"
    assert path_of({"path": "{id.x}"}, "{id}.mp4", id=1) == "{id.x}"
    with pytest.raises(UserError, match=r"no field \{uid\}; there are \{id\}"):
        path_of({"path": "{uid}.mkv"}, "{id}.mp4", id=1)


def test_length_is_a_column_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("\ufeffvideo_id,Duration,x\na,12.5,y\nb,,y\n")
    options = {"durations": str(file)}
    assert [length_of(options, film) for film in "abc"] == [12.5, None, None]
    assert length_of({}, "a") is None


@pytest.mark.parametrize(
    "text", ["id,size\na,1\n", "", "id,length\na,long\n", "id,length\na,nan\n", "id,length\na,-1\n"]
)
def test_table_without_lengths_is_an_error_of_the_user(tmp_path: Path, text: str) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"lengths\.csv"):
        length_of({"durations": str(file)}, "a")
