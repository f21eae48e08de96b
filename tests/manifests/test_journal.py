"""Rows that are written down before their part is whole: none is lost with a kill, none is stored twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
    columns = {"caption": [None if retry else f"c{i}" for i in ids], "error": ["e" if retry else None] * len(ids)}
    return pa.table({"id": list(ids), **columns, "retry": [retry] * len(ids)}, schema=SCHEMA)


def ids_of(table: Table) -> list[int]:
    return sorted(table.scan().collect()["id"].to_list())


def test_journal_rows_are_reused_by_the_next_try_at_the_part(tmp_path: Path) -> None:
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


def test_error_in_a_journal_does_not_undo_a_retry(tmp_path: Path) -> None:
    """Of another machine's journal nobody knows whether its owner lives, so it may be read after `vl3syn retry`."""
    table = table_at(tmp_path / "t")
    final = rows(1, retry=True).set_column(3, "retry", pa.array([False]))
    journal = Journal(table, pa.chunked_array([[1, 2]]), {})
    journal.append(final)
    journal.append(rows(2))
    table.append(rows(1, retry=True), table.next_writer(), {})  # the error was stored, and marked to be tried again
    assert recover(table) == 1
    assert sorted(table.scan(["id", "retry"]).collect().rows()) == [(1, True), (2, False)]


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


def test_rows_of_a_killed_writer_are_complete(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
import pyarrow as pa
from collections.abc import Iterator
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
    counts = [0, *(int(line) for line in writer.stdout.read().split("\n")[:-1] if line)]
    table = table_at(tmp_path / "t")
    recover(table)
    assert len(counts) > 10
    assert ids_of(table)[: len(counts)] == counts
    assert len(ids_of(table)) <= len(counts) + 1  # the last one may have been written and not told


@pytest.mark.parametrize("cut", [0, 1, 100, 500, 900])
def test_truncated_journal_gives_its_whole_rows(tmp_path: Path, cut: int) -> None:
    table = table_at(tmp_path / "t")
    journal = Journal(table, pa.chunked_array([[1, 2, 3]]), {})
    for id_ in (1, 2, 3):
        journal.append(rows(id_))
    file = next((tmp_path / "t").glob("journal-*"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - cut] if cut else data)
    recover(table)
    ids = ids_of(table)
    assert ids == [1, 2, 3][: len(ids)]
    assert len(ids) == 3 if cut == 0 else len(ids) < 3
    assert table.scan().select(pl.col("caption")).collect()["caption"].to_list() == [f"c{i}" for i in ids]


def test_empty_journal_is_deleted(tmp_path: Path) -> None:
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


OWNER = """
import sys
sys.path.insert(0, {here!r})
import pyarrow as pa
from collections.abc import Iterator
from pathlib import Path
from tests.manifests.test_journal import rows, table_at
from manifests.journal import Journal
journal = Journal(table_at(Path({folder!r})), pa.chunked_array([[1, 2, 3, 4]]), {{"weights": "x"}})
journal.append(rows(1, 2))
journal.append(rows(4, retry=True))
print("written", flush=True)
sys.stdin.readline()
journal.append(rows(3))
print("written", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A living process with a journal of the table `t` that holds 1 and 2; told to go on, it writes 3."""
    script = OWNER.format(here=os.getcwd(), folder=str(tmp_path / "t"))
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    yield process
    process.kill()
    process.wait()


def go_on(owner: subprocess.Popen[str]) -> None:
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write("\n")
    owner.stdin.flush()
    assert owner.stdout.readline() == "written\n"


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("t/journal-*"))


def test_journal_of_a_living_job_stays_and_is_copied_once(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    table = table_at(tmp_path / "t")
    assert recover(table) == 2
    assert ids_of(table) == [1, 2]  # nothing is asked for again that is written down
    assert recover(table) == 0
    assert len(journals(tmp_path)) == 1
    go_on(owner)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert recover(table) == 2  # 3, and 4 with the reason why it is worth another try
    assert ids_of(table) == [1, 2, 3, 4]
    assert journals(tmp_path) == []
    assert table.provenance() == {"weights": "x"}


def test_second_job_at_a_part_keeps_the_journal_of_the_first(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    table = table_at(tmp_path / "t")
    before = journals(tmp_path)
    second = Journal(table, pa.chunked_array([[1, 2, 3, 4]]), {})
    assert second.left_behind["id"].to_pylist() == [1, 2]
    second.append(rows(3))
    second.delete()
    assert journals(tmp_path) == before
    owner.kill()
    owner.wait()
    Journal(table, pa.chunked_array([[1, 2, 3, 4]]), {}).delete()
    assert journals(tmp_path) == []


def test_process_with_a_reused_pid_is_not_the_owner(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    (journal,) = journals(tmp_path)
    head, _, started = journal.stem.rpartition("-")
    journal.rename(journal.with_name(f"{head}-{int(started) - 5}.arrows"))
    assert recover(table_at(tmp_path / "t")) == 3
    assert journals(tmp_path) == []


@pytest.mark.parametrize("owner_named", [True, False])
def test_journal_of_another_machine_is_taken_after_ten_minutes(
    tmp_path: Path, owner: subprocess.Popen[str], owner_named: bool
) -> None:
    (journal,) = journals(tmp_path)
    prefix, part, nonce, _, pid, started = journal.stem.split("-")
    # Earlier versions named no owner.
    name = [prefix, part, nonce, *(["0123456789abcdef", pid, started] if owner_named else [])]
    moved = journal.rename(journal.with_name("-".join(name) + ".arrows"))
    table = table_at(tmp_path / "t")
    os.utime(moved, (time.time() - 500,) * 2)
    assert recover(table) == 2
    assert journals(tmp_path) == [moved]
    os.utime(moved, (time.time() - 700,) * 2)
    assert recover(table) == 1  # 4, with its error
    assert journals(tmp_path) == []
    assert ids_of(table) == [1, 2, 4]


def test_flipped_bit_of_a_journal_loses_rows_but_changes_none(tmp_path: Path) -> None:
    table = table_at(tmp_path / "t")
    journal = Journal(table, pa.chunked_array([[1, 2, 3]]), {"weights": "x"})
    for id_ in (1, 2, 3):
        journal.append(rows(id_))
    sound = journals(tmp_path)[0].read_bytes()
    expected = {(i, f"c{i}", None, False) for i in (1, 2, 3)}
    sizes = set()
    for bit in random.Random(30).sample(range(8 * len(sound)), 400):
        journals(tmp_path)[0].write_bytes(
            sound[: bit // 8] + bytes([sound[bit // 8] ^ (1 << bit % 8)]) + sound[bit // 8 + 1 :]
        )
        again = Journal(table, pa.chunked_array([[1, 2, 3]]), {})
        left = again.left_behind.to_pylist()
        assert {tuple(row.values()) for row in left} <= expected, f"bit {bit}"
        sizes.add(len(left))
        for name in journals(tmp_path):
            if name.stat().st_size != len(sound):
                name.unlink()
    assert sizes == {0, 1, 2, 3}


def test_journal_of_an_earlier_version_is_read_without_checksums(tmp_path: Path) -> None:
    table = table_at(tmp_path / "t")
    table.folder.create()
    path = tmp_path / "t" / "journal-0011223344556677-00000000.arrows"
    with pa.ipc.new_stream(str(path), SCHEMA.with_metadata({"vl3syn": '{"weights": "x"}'})) as stream:
        stream.write_table(rows(1, 2))
    os.utime(path, (time.time() - 700,) * 2)
    assert recover(table) == 2
    assert table.provenance() == {"weights": "x"}
    assert journals(tmp_path) == []
