"""Files of records: both forms read back exactly, and Parquet can be queried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import UserError
from core.records import Licence, Medium, Part, Record, Source, Turn
from manifests.record_files import RecordWriter, are_records, read_records, record_files


def record(number: int) -> Record:
    film = Medium(
        key="v0", type="video", path=f"{number}.mp4", start=0.1 * number, end=0.1 * number + 7, present=number % 2 == 0
    )
    turns = (
        Turn(role="user", parts=(Part(media="v0"), Part(text="Was\u2028ist\n\x00das?"))),
        Turn(role="assistant", parts=(Part(text=f"ü {number}"),)),
    )
    source = Source(dataset="set", original_id=str(number))
    return Record(
        id=f"set/{number}/1",
        source=source,
        licence=Licence(name="MIT", non_commercial=False),
        media=(film,),
        turns=turns,
    )


def written(folder: Path, form: Any, count: int = 5, rows_per_file: int = 2) -> list[Record]:
    records = [record(number) for number in range(count)]
    with RecordWriter(folder, form, rows_per_file) as writer:
        for each in records:
            writer.write(each)
    return records


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_records_come_back_exactly_from_several_files(tmp_path: Path, form: str) -> None:
    records = written(tmp_path, form)
    assert [file.name for file in record_files(tmp_path)] == [f"records-0000{number}.{form}" for number in range(3)]
    assert list(read_records(tmp_path)) == records
    assert list(read_records(tmp_path / f"records-00001.{form}")) == records[2:4]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_no_records_are_a_file_without_rows(tmp_path: Path, form: str) -> None:
    written(tmp_path, form, 0)
    assert len(record_files(tmp_path)) == 1
    assert list(read_records(tmp_path)) == []


def test_parquet_has_columns_to_query(tmp_path: Path) -> None:
    written(tmp_path, "parquet")
    table = pl.read_parquet(tmp_path / "records-*.parquet")
    film = pl.col("media").list.first().struct
    missing = table.filter(~film.field("present")).select("id", "answer", "licence", film.field("end").alias("end"))
    assert missing.rows() == [("set/1/1", "ü 1", "MIT", 7.1), ("set/3/1", "ü 3", "MIT", 7.3)]
    assert table["characters"].to_list() == [len("Was ist\n das?") + 3] * 5


def test_folder_of_both_forms_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "jsonl")
    written(tmp_path, "parquet")
    with pytest.raises(UserError, match="leave one form there, else each counts twice"):
        record_files(tmp_path)


def test_damaged_record_is_named(tmp_path: Path) -> None:
    written(tmp_path, "jsonl", 1)
    (tmp_path / "records-00000.jsonl").write_text(record(1).to_json() + '\n{"id": 1}\n')
    with pytest.raises(UserError, match=r"records-00000.jsonl: record 2: no record: .*; import it again"):
        list(read_records(tmp_path))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_missing_file_of_records_is_an_error(tmp_path: Path, form: str) -> None:
    written(tmp_path, form)
    (tmp_path / f"records-00001.{form}").unlink()
    with pytest.raises(UserError, match=f"records-00002.{form} where records-00001 should be: copy all files"):
        record_files(tmp_path)


def test_parquet_without_records_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "records-00000.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(file)
    with pytest.raises(UserError, match="no column record: these are no records"):
        list(read_records(file))
    written(tmp_path, "parquet", 1)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match="no whole Parquet file: import it again"):
        list(read_records(file))


def test_records_are_told_by_their_names(tmp_path: Path) -> None:
    written(tmp_path, "jsonl", 1)
    for name, expected in ((".", True), ("records-00000.jsonl", True), ("records-a.jsonl", False), ("none", False)):
        assert are_records(tmp_path / name) == expected, name
    (tmp_path / "records-00000.jsonl").rename(tmp_path / "train.jsonl")
    assert not are_records(tmp_path)
