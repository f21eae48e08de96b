"""Rows that are written down before their part is whole: none is lost with a kill, none is stored twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from manifests.journal import Journal, recover
from manifests.schemas import column, table_schema
from manifests.storage import Folder
from manifests.tables import Table

SCHEMA = table_schema(pa.schema([column("caption", pa.string(), "c")]))


def table_at(folder: Path) -> Table:
    return Table(Folder.at(folder), SCHEMA)


def rows(*ids: int, retry: bool = False) -> pa.Table:
    told = {"caption": [None if retry else f"c{i}" for i in ids], "error": ["e" if retry else None] * len(ids)}
    return pa.table({"id": list(ids), **told, "retry": [retry] * len(ids)}, schema=SCHEMA)


def ids_of(table: Table) -> list[int]:
    return sorted(table.scan().collect()["id"].to_list())


def test_what_was_written_down_is_there_for_the_next_try_at_the_part(tmp_path: Path) -> None:
    table, part = table_at(tmp_path / "t"), pa.chunked_array([[1, 2, 3, 4]])
    first = Journal(table, part, {"weights": "x"})
    assert first.left_behind.num_rows == 0
    first.append(rows(3))
    first.append(rows(1))
    first.append(rows(2, retry=True))
    second = Journal(table, part, {"weights": "x"})
    assert second.left_behind["id"].to_pylist() == [1, 3]  # what is worth another try gets it
    assert Journal(table, pa.chunked_array([[5]]), {}).left_behind.num_rows == 0
    assert ids_of(table) == []  # readers of the table do not see it
    second.delete()
    assert Journal(table, part, {}).left_behind.num_rows == 0


def test_recovered_rows_are_stored_once_with_their_provenance(tmp_path: Path) -> None:
    table = table_at(tmp_path / "t")
    for _ in range(2):  # two tries at one part, both killed, the second one before it looked
        journal = Journal(table, pa.chunked_array([[1, 2]]), {"weights": "x"})
        journal.append(rows(1))
    Journal(table, pa.chunked_array([[7, 8]]), {"weights": "x"}).append(rows(8, retry=True))
    assert recover(table) == 2
    assert recover(table) == 0
    assert ids_of(table) == [1, 8]
    assert table.scan().filter("retry").collect()["id"].to_list() == [8]
    assert table.provenance()["weights"] == "x"
    assert [f.base_name for f in table.folder.files() if f.base_name.startswith("journal")] == []


def test_rows_of_a_killed_writer_are_whole_and_all_there(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
import pyarrow as pa
from pathlib import Path
from tests.manifests.test_journal import rows, table_at
from manifests.journal import Journal
journal = Journal(table_at(Path({str(tmp_path / "t")!r})), pa.chunked_array([list(range(100000))]), {{}})
for number in range(100000):
    journal.append(rows(number))
    print(number, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(0.3)
    writer.send_signal(signal.SIGKILL)
    told = [0, *(int(line) for line in writer.stdout.read().split("\n")[:-1] if line)]
    table = table_at(tmp_path / "t")
    recover(table)
    assert len(told) > 10
    assert ids_of(table)[: len(told)] == told
    assert len(ids_of(table)) <= len(told) + 1  # the last one may have been written and not told


@pytest.mark.parametrize("cut", [0, 1, 100, 500, 900])
def test_a_cut_off_journal_gives_its_whole_rows(tmp_path: Path, cut: int) -> None:
    table = table_at(tmp_path / "t")
    journal = Journal(table, pa.chunked_array([[1, 2, 3]]), {})
    for id_ in (1, 2, 3):
        journal.append(rows(id_))
    file = next((tmp_path / "t").glob("journal-*"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - cut] if cut else data)
    recover(table)
    found = ids_of(table)
    assert found == [1, 2, 3][: len(found)]
    assert len(found) == 3 if cut == 0 else len(found) < 3
    assert table.scan().select(pl.col("caption")).collect()["caption"].to_list() == [f"c{i}" for i in found]


def test_a_journal_of_nothing_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "journal-0011223344556677-00000000.arrows").write_bytes(b"")
    assert recover(table_at(tmp_path / "t")) == 0
    assert list((tmp_path / "t").iterdir()) == []


def test_object_stores_have_no_journal(bucket: str) -> None:
    table = Table(Folder.at(f"{bucket}/journal-test"), SCHEMA)
    journal = Journal(table, pa.chunked_array([[1]]), {})
    journal.append(rows(1))
    journal.delete()
    assert recover(table) == 0
    assert table.folder.files() == []
