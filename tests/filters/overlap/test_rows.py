"""Rows of foreign files: every form, streamed, and what is broken or hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import BadSampleError, UserError
from filters.overlap import rows as module
from filters.overlap.rows import rows_of

ROWS: list[dict[str, Any]] = [{"id": "1", "question": "Où est\nle pont?"}, {"id": "2", "question": 'a "quote", and ü'}]


def read(path: Path, content: bytes | str) -> list[Any]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row for _, row in rows_of(path)]


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", json.dumps(ROWS)) == ROWS
    assert read(tmp_path / "b.json", json.dumps(ROWS, indent=2, ensure_ascii=False)) == ROWS
    assert read(tmp_path / "c.json", json.dumps({"version": 1, "data": ROWS})) == ROWS
    assert read(tmp_path / "d.json", json.dumps({row["id"]: {"question": row["question"]} for row in ROWS})) == ROWS
    assert read(tmp_path / "e.jsonl", "\n\n".join(json.dumps(row) for row in ROWS)) == ROWS
    pl.DataFrame(ROWS).write_parquet(tmp_path / "f.parquet")
    pl.DataFrame(ROWS).write_csv(tmp_path / "g.csv")
    pl.DataFrame(ROWS).write_csv(tmp_path / "h.tsv", separator="\t")
    for name in ("f.parquet", "g.csv", "h.tsv"):
        assert [row for _, row in rows_of(tmp_path / name)] == ROWS, name
    assert read(tmp_path / "i.txt", "One?\n\nTwo?\n") == [{"question": "One?"}, {"question": "Two?"}]


def test_bad_rows_are_reported_and_the_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 1000)
    nested = "[" * 900
    lines = ['{"id": 1}', "no json", "[1]", f'{{"id": "{"x" * 3000}"}}', nested, '{"id": 2}']
    read_lines = read(tmp_path / "a.jsonl", "\n".join(lines))
    assert [row for row in read_lines if isinstance(row, dict)] == [{"id": 1}, {"id": 2}]
    assert [isinstance(row, BadSampleError) for row in read_lines] == [False, True, True, True, True, False]
    assert [type(row) for row in read(tmp_path / "b.json", '[{"id": 1}, 7, {"id": 2}]')] == [dict, BadSampleError, dict]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"id": 1}, {"id": ', "behind row 1: no JSON: cut off"),
        ("a.json", b'[{"id": 1}', "behind row 1: no JSON: cut off before , or ]"),
        ("a.json", b'[{"id": 1}][{"id": 2}]', "behind row 1: no JSON: more behind the end"),
        ("a.csv", b"x" * 200_000, "its first line is no header"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.json", b"12", "neither a list nor an object"),
        ("a.json", b'{"version": 1}', "no list of rows"),
        ("a.json", b'[{"id": "\xff"}]', "utf-8"),
        ("a.parquet", b"PAR1 no more", "cannot be read"),
        ("a.pkl", b"\x80\x04.", "give a folder of images, or a file that ends with"),
    ],
)
def test_file_that_loses_rows_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read(tmp_path / name, content)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_lists_of_an_object_are_read(tmp_path: Path) -> None:
    """COCO's form has two; another form names its list by the split, beside a description."""
    coco = {"images": [{"id": 1}], "annotations": [{"id": 2}], "licenses": [{"id": 3}]}
    assert read(tmp_path / "a.json", json.dumps(coco)) == [{"id": 2}, {"id": 1}]
    splits = {"info": {"description": "a set"}, "sizes": [1], "val": [{"id": 1}], "test": [{"id": 2}]}
    assert read(tmp_path / "b.json", json.dumps(splits)) == [{"id": 1}, {"id": 2}]


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="a folder, pipe or device"):
        next(rows_of(tmp_path / "a.jsonl"))


def test_columns_of_images_are_read_whatever_their_name(tmp_path: Path) -> None:
    image = {"bytes": b"1", "path": None}
    pl.DataFrame({"page": [image], "pages": [[image]], "sha": ["x"], "box": [{"x": 1}]}).write_parquet(
        tmp_path / "a.parquet"
    )
    rows = [row for _, row in rows_of(tmp_path / "a.parquet", lambda name: name == "question")]
    assert rows == [{"page": image, "pages": [image]}]


def test_large_object_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OBJECT", 10)
    with pytest.raises(UserError, match="more than 10: write a list"):
        read(tmp_path / "a.json", '{"data": [{"id": 1}]}')
