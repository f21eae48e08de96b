"""Tables: parts that are whole, newest rows, readers beside writers, provenance."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from core.errors import UserError
from manifests.schemas import column, table_schema
from manifests.storage import ASIDE, Folder
from manifests.tables import Table, fingerprint

SCHEMA = table_schema(pa.schema([column("score", pa.float32(), "a score", 0, 10)]))


def part(ids: list[int], score: float, error: str | None = None) -> pa.Table:
    n = len(ids)
    return pa.table(
        {"id": ids, "score": [score] * n, "error": pa.array([error] * n, pa.string()), "retry": [False] * n}
    )


def table(folder: Path) -> Table:
    return Table(Folder.at(folder / "t"), SCHEMA)


def test_empty_table_has_its_columns_and_no_rows(tmp_path: Path) -> None:
    frame = table(tmp_path).scan().collect()
    assert frame.columns == SCHEMA.names
    assert frame.height == 0


def test_newest_row_of_an_id_is_taken(tmp_path: Path) -> None:
    t = table(tmp_path)
    first = t.next_writer()
    t.append(part([1, 2], 1), first, {})
    t.append(part([3], 1), first, {})
    t.append(part([2, 4], 2), t.next_writer(), {})
    t.append(part([2], 3), t.next_writer(), {})
    assert sorted(t.scan().select("id", "score").collect().iter_rows()) == [(1, 1), (2, 3), (3, 1), (4, 2)]


def test_task_that_is_run_twice_writes_its_rows_once(tmp_path: Path) -> None:
    t = table(tmp_path)
    writer = t.next_writer()
    assert t.append(part([1, 2], 1), writer, {}) == t.append(part([1, 2], 1), writer, {})
    assert t.scan().collect().height == 2


def test_open_reader_is_not_changed_by_a_new_part(tmp_path: Path) -> None:
    t = table(tmp_path)
    t.append(part([1], 1), t.next_writer(), {})
    reader = t.scan()
    t.append(part([2], 1), t.next_writer(), {})
    assert reader.collect()["id"].to_list() == [1]
    assert sorted(t.scan().collect()["id"]) == [1, 2]


def test_half_written_files_are_ignored_and_deleted_in_an_hour(tmp_path: Path) -> None:
    t = table(tmp_path)
    t.append(part([1], 1), t.next_writer(), {})
    young, old = (Path(t.folder.path) / f"{ASIDE}{name}" for name in ("young", "old"))
    for file in (young, old):
        file.write_bytes(b"PAR1 and then the power went")
    os.utime(old, (time.time() - 4000,) * 2)
    assert t.scan().collect()["id"].to_list() == [1]
    assert t.folder.sweep_aside() == 1
    assert young.exists()
    assert not old.exists()


def test_write_that_fails_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = table(tmp_path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        t.append(part([1], 1), t.next_writer(), {})
    assert t.parts() == []


def test_provenance_and_column_descriptions_are_read_back(tmp_path: Path) -> None:
    t = table(tmp_path)
    t.append(part([1], 1), t.next_writer(), {"model": "ViT-L-14", "revision": "abc"})
    stored = Table.stored(t.folder)
    assert stored.provenance() == {"model": "ViT-L-14", "revision": "abc"}
    assert stored.schema.field("score").metadata[b"doc"] == b"a score"


def test_many_writers_lose_no_row(tmp_path: Path) -> None:
    t = table(tmp_path)
    for i in range(40):
        t.append(part([i, 100 + i], float(i)), t.next_writer(), {})
    assert t.scan().select(pl.col("id").n_unique(), pl.len().alias("n")).collect().row(0) == (80, 80)


@pytest.mark.parametrize("overlap", [0, 5])
@pytest.mark.parametrize("jobs", [100, pytest.param(400, marks=pytest.mark.thorough)])
def test_rows_of_many_jobs_are_the_newest(tmp_path: Path, jobs: int, overlap: int) -> None:
    t, newest = of_jobs(tmp_path, jobs, overlap)
    rows = t.scan().collect(engine="streaming")
    assert dict(rows.select("id", "score").iter_rows()) == newest
    assert rows.height == len(newest)
    located, names = t.locate()
    job_of = {id_: int(names[number].split("-")[1]) - 1 for id_, number in located.collect().iter_rows()}
    assert {id_: float(job % 7) for id_, job in job_of.items()} == newest


@pytest.mark.thorough
def test_time_of_a_scan_grows_linearly_with_the_jobs(tmp_path: Path) -> None:
    """Joining each job with all later ones took 19 times as long for four times as many."""
    few, many = (of_jobs(tmp_path / str(jobs), jobs, 5)[0] for jobs in (100, 400))

    def seconds(t: Table) -> float:
        begin = time.process_time()
        t.scan().collect(engine="streaming")
        return time.process_time() - begin

    assert min(seconds(many) for _ in range(3)) <= 10 * min(seconds(few) for _ in range(3))


def of_jobs(folder: Path, jobs: int, overlap: int) -> tuple[Table, dict[int, float]]:
    """A table of many jobs of 100 rows, of which each computes some rows again; and the newest score of each id."""
    t, dice = table(folder), random.Random(0)
    newest: dict[int, float] = {}
    for job in range(jobs):
        again = dice.sample(sorted(newest), overlap) if newest else []
        ids = [*dice.sample(range(1 << 40, 1 << 62), 100 - len(again)), *again]
        t.append(part(ids, float(job % 7)), f"{job + 1:06d}-{job:08x}", {})
        newest |= dict.fromkeys(ids, float(job % 7))
    return t, newest


def test_fingerprints_follow_content_not_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_secrets_in_urls_are_refused() -> None:
    with pytest.raises(ValueError, match="keep credentials in the environment"):
        Folder.at("s3://key:secret@bucket/run")


def test_unknown_schemes_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match="nosuch"):
        Folder.at("nosuch://bucket/run")


@pytest.mark.parametrize("url", ["s3://bucket/run#1", "file:///run#1", "file:///run?1", "file://host/run"])
def test_url_with_a_query_or_fragment_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL of a folder"):
        Folder.at(url)


def test_local_path_that_resembles_a_url_is_read(tmp_path: Path) -> None:
    assert Folder.at("exp:1#2").path.endswith("/exp:1#2")
    assert Folder.at("file:///a%20b").path == "/a b"


@pytest.mark.parametrize(
    "name", ["{} (1)", "{} copy", "{}-copy", "{}.sync-conflict-20260101-101010-ABCDEFG", "part-1", "{}0"]
)
def test_file_with_a_name_like_a_part_is_an_error(tmp_path: Path, name: str) -> None:
    t = table(tmp_path)
    stored = Path(t.folder.path) / t.append(part([1, 2], 1), t.next_writer(), {})
    copy = stored.with_name(f"{name.format(stored.stem)}.parquet")
    copy.write_bytes(stored.read_bytes())
    for read in (t.scan, t.every_id, t.locate, t.parts, t.next_writer, lambda: Table.stored(t.folder)):
        with pytest.raises(UserError, match=rf"^{re.escape(str(copy))}: no part has such a name; .*move it away"):
            read()
    copy.unlink()
    assert t.scan().collect()["id"].to_list() == [1, 2]


@pytest.mark.parametrize("change", ["generation", "writer", "smallest id", "hash"])
def test_part_with_the_name_of_another_part_is_refused(tmp_path: Path, change: str) -> None:
    t = table(tmp_path)
    stored = Path(t.folder.path) / t.append(part([1, 2], 1), t.next_writer(), {})
    words = stored.stem.split("-")
    position = ["generation", "writer", "smallest id", "hash"].index(change) + 1
    words[position] = words[position].replace(words[position][-1], "7" if words[position][-1] != "7" else "8")
    copy = stored.with_name(f"{'-'.join(words)}.parquet")
    copy.write_bytes(stored.read_bytes())
    with pytest.raises(UserError, match=rf"^{copy}: a copy of {stored.name}, or that file under another name; move it"):
        t.scan()
    stored.unlink()
    with pytest.raises(UserError, match=rf"^{copy}: a copy of {stored.name}"):
        t.read(copy.name, ["id"])
