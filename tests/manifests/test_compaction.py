"""Compaction: the same rows in fewer files, beside readers and writers, and after a kill at any step."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import UserError
from manifests import compaction
from manifests.compaction import compact, sweep
from manifests.part_files import PartFiles
from manifests.schemas import column, table_schema
from manifests.storage import ASIDE, Folder
from manifests.tables import Table

SCHEMA = table_schema(pa.schema([column("shard", pa.string(), "a file"), column("score", pa.int32(), "a score")]))
OLDER = table_schema(pa.schema([column("shard", pa.string(), "a file")]))
Row = dict[str, Any]


def part(rows: list[tuple[int, str, int]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows of ids, shards and scores; odd scores are failures to be tried again."""
    made = [
        {
            "id": id_,
            "shard": shard,
            "score": score,
            "error": "server: 5" if score % 2 else None,
            "retry": score % 2 == 1,
        }
        for id_, shard, score in rows
    ]
    return pa.Table.from_pylist(made, schema=schema)


def history(table: Table, seed: int, jobs: int = 12) -> list[Row]:
    """Write the parts of some jobs. Return the rows that count, by a loop over the jobs: the newest of each key."""
    dice = random.Random(seed)
    current: list[Row] = []
    for job in range(jobs):
        writer = table.next_writer()
        older = job < jobs // 3
        ids = dice.sample(range(40), dice.randint(0, 12))
        rows = [(id_, f"{id_ % 5}.tar", dice.randint(0, 99)) for id_ in ids]
        for start in range(0, max(len(rows), 1), 4):
            block = part(rows[start : start + 4])
            writing = Table(table.folder, OLDER) if older else table
            writing.append(block.select(writing.schema.names), writer, {"job": job // 2, "block": start})
        added = [row | ({"score": None} if older else {}) for row in part(rows).to_pylist()]
        replaced = {row[table.key] for row in added}
        current = [row for row in current if row[table.key] not in replaced] + added
    return by_id(current)


def by_id(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["id"], row["shard"]))


def rows_of(table: Table) -> list[Row]:
    return by_id(table.scan().collect(engine="streaming").to_dicts())


def everything(table: Table) -> tuple[object, ...]:
    """All that a reader can learn of a table: its rows, where each is, what computed it, its columns and jobs."""
    located, names = table.locate()
    where = {(id_, names[number]) for id_, number in located.collect().iter_rows()}
    parts = {name: table.read(name, table.schema.names).to_pylist() for name in names}
    ids = set(table.every_id().collect()["id"])
    columns = [(field, field.metadata) for field in Table.stored(table.folder).schema]
    jobs = table.next_writer().split("-")[0]
    return rows_of(table), where, names, parts, ids, columns, table.provenances(), table.provenance(), jobs


def files(table: Table) -> list[str]:
    return [file.base_name for file in table.folder.files()]


def grow_old(table: Table) -> None:
    """Let two hours pass since the files were written."""
    for file in Path(table.folder.path).iterdir():
        os.utime(file, (time.time() - 7200,) * 2)


def local(folder: Path, key: str = "id") -> Table:
    return Table(Folder.at(folder / "t"), SCHEMA, key=key)


@pytest.mark.parametrize("key", ["id", "shard"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(1, 6))])
def test_compaction_keeps_all_that_a_table_says(tmp_path: Path, seed: int, key: str) -> None:
    table = local(tmp_path, key)
    current = history(table, seed)
    assert rows_of(table) == current
    before = everything(table)
    done = compact(table)
    assert everything(table) == before
    assert (done.parts, done.files_before, done.files_after) == (len(table.parts()), len(table.parts()), 2)
    assert (done.deleted, done.waiting) == (0, done.files_before)
    grow_old(table)
    later = compact(table)
    assert (later.files_before, later.files_after, later.deleted, later.waiting) == (2, 2, done.files_before, 0)
    assert len(files(table)) == 2  # the columns of two versions
    assert everything(table) == before


@pytest.mark.parametrize("key", ["id", "shard"])
def test_jobs_after_a_compaction_replace_its_rows(tmp_path: Path, key: str) -> None:
    table, alone = local(tmp_path / "a", key), local(tmp_path / "b", key)
    table.folder.create()
    for round_ in range(4):
        history(alone, round_, jobs=3)
        for name in set(files(alone)) - set(table.parts()):
            shutil.copy2(f"{alone.folder.path}/{name}", Path(table.folder.path, name))
        compact(table)
        grow_old(table)
        assert everything(table) == everything(alone)
    compact(table)
    assert len(files(table)) <= 2 < len(files(alone))


def test_part_counts_once_if_two_compactions_hold_it(tmp_path: Path) -> None:
    table = local(tmp_path)
    history(table, 1, jobs=8)
    folder, apart = Path(table.folder.path), tmp_path / "apart"
    parts = files(table)
    before = everything(table)
    for number, listed in enumerate((parts[-8:-3], parts[-5:], parts[-8:])):  # by three processes, at other times
        some = Table(Folder.at(apart / str(number)), SCHEMA)
        some.folder.create()
        for name in listed:
            shutil.copy2(folder / name, some.folder.path)
        compact(some)
        (written,) = Path(some.folder.path).glob("part-000000-*")
        shutil.copy2(written, folder)
        assert everything(table) == before
    grow_old(table)
    compact(table)
    grow_old(table)
    assert compact(table).waiting == 0
    assert everything(table) == before


def test_same_parts_are_compacted_into_the_same_file(tmp_path: Path) -> None:
    table = local(tmp_path / "a")
    history(table, 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        compact(local(folder))
    first, second = ({f.name: f.read_bytes() for f in (tmp_path / x / "t").iterdir()} for x in "ab")
    assert first == second


def test_compacted_file_has_bounds_and_full_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", 10)
    table = local(tmp_path)
    lengths = [3, 3, 3, 6, 3, 3, 10, 1, 0, 4]
    for number, length in enumerate(lengths):
        rows = [(100 * number + n, "s", 2) for n in range(length)]
        table.append(part(rows), table.next_writer(), {})
    before = everything(table)
    compact(table)
    listed = table.list_files()
    held = dict.fromkeys((file.path for file in listed.files), 0)
    for stored, length in zip(listed.parts, listed.lengths(), strict=True):
        held[stored.file.path] += int(length)
    assert sorted(held.values()) == [4, 6, 7, 9, 10]
    assert everything(table) == before
    assert compact(table).files_after == len(listed.files)


def test_reader_who_listed_before_reads_after_a_compaction(tmp_path: Path) -> None:
    table = local(tmp_path)
    current = history(table, 5)
    parts = {name: table.read(name, table.schema.names).to_pylist() for name in table.parts()}
    reader, names = table.scan(), table.parts()
    compact(table)
    assert by_id(reader.collect().to_dicts()) == current
    grow_old(table)
    assert sweep(table) > 0
    for name in names:  # workers keep the names of parts for as long as their job takes
        assert table.read(name, table.schema.names).to_pylist() == parts[name]


@pytest.mark.parametrize("store", ["local", "s3"])
def test_reader_lists_again_if_a_listed_file_has_gone(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    url = tmp_path if store == "local" else f"{request.getfixturevalue('bucket')}/late"
    table = Table(Folder.at(url), SCHEMA)
    current = history(table, 5, jobs=4)
    parts = {name: table.read(name, table.schema.names).to_pylist() for name in table.parts()}
    listing = PartFiles.of(table.folder, table.remedy)
    monkeypatch.setattr(compaction, "LIFETIME_S", -1.0)
    assert compact(table).waiting == 0
    listings: list[PartFiles] = []
    list_now = PartFiles.of

    def late(folder: Folder, remedy: str) -> PartFiles:
        """Every other listing is one from before the compaction."""
        listings.append(listing if len(listings) % 2 == 0 else list_now(folder, remedy))
        return listings[-1]

    monkeypatch.setattr(PartFiles, "of", late)
    monkeypatch.setattr("manifests.checksums._footers", {})  # as in a process that has read nothing yet
    assert rows_of(table) == current
    assert len(listings) == 2
    listings.clear()
    name = max(parts)
    assert table.read(name, table.schema.names).to_pylist() == parts[name]
    assert len(listings) == 2


JOBS = 100


@pytest.mark.thorough
def test_readers_and_writers_beside_compactions_see_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LIFETIME_S", 2.0)  # longer than a reader here takes
    table = local(tmp_path)
    stored, wrong, end = [0], [], threading.Event()

    def read() -> None:
        while not end.is_set():
            least = stored[0]
            scores = dict(table.scan(["id", "score"]).collect(engine="streaming").iter_rows())
            ids = sorted(table.scan(["id"]).collect()["id"])
            if len(ids) != len(set(ids)) or len(scores) < 3 * least or any(s < i // 3 for i, s in scores.items()):
                wrong.append((least, len(ids), scores))

    def write() -> None:
        for number in range(JOBS):
            writer = table.next_writer()
            ids = [*range(3 * number, 3 * number + 3), *([3 * number - 30] if number > 9 else [])]
            table.append(part([(id_, "s", 2 * number) for id_ in ids]), writer, {})
            stored[0] = number + 1
            time.sleep(0.05)

    with ThreadPoolExecutor(3) as threads:
        readers, writer = [threads.submit(read), threads.submit(read)], threads.submit(write)
        try:
            deleted = 0
            while not writer.done():
                deleted += compact(table).deleted
        finally:
            end.set()
    for thread in (*readers, writer):
        thread.result()
    assert wrong == []
    assert deleted > 0
    assert sorted(table.scan(["id"]).collect()["id"]) == list(range(3 * JOBS))
    newest = {
        id_: 2 * (id_ // 3 + 10) if id_ % 3 == 0 and id_ < 3 * JOBS - 30 else 2 * (id_ // 3) for id_ in range(3 * JOBS)
    }
    assert dict(table.scan(["id", "score"]).collect().iter_rows()) == newest


KILLS = """
import os, shutil, signal, sys
from manifests import compaction
from manifests.storage import Folder
from manifests.tables import Table
from tests.manifests.test_compaction import SCHEMA

def compact_and_die(folder, steps):
    left = [steps]
    def step(call):
        def stepped(*args, **kwargs):
            for do in (lambda *_, **__: None, call):
                result = do(*args, **kwargs)
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return result
        return stepped
    os.replace, Folder.delete = step(os.replace), step(Folder.delete)
    compaction._REQUESTS = 1
    compaction.compact(Table(Folder.at(folder + "/t"), SCHEMA))

source, into = sys.argv[1:]
steps = 0
while True:
    folder = f"{into}/{steps}"
    shutil.copytree(source, folder)
    if not (child := os.fork()):
        compact_and_die(folder, steps)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    steps += 1
print(steps)
"""


def test_kill_at_any_step_loses_and_repeats_no_row(tmp_path: Path) -> None:
    table = local(tmp_path / "source")
    history(table, 7, jobs=4)
    compact(table)
    grow_old(table)
    table.append(part([(1, "s", 2)]), table.next_writer(), {})
    before = everything(table)
    replaced = len(table.list_files().listed) - len(table.list_files().files)
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", KILLS, str(tmp_path / "source"), str(tmp_path / "killed")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills == 2 * (1 + replaced)  # before and after the write of the new file and each deletion
    for number in range(kills + 1):
        killed = local(tmp_path / "killed" / str(number))
        assert everything(killed) == before
        grow_old(killed)
        compact(killed)
        grow_old(killed)
        assert compact(killed).waiting == 0
        assert not [name for name in files(killed) if name.startswith(ASIDE)]
        assert everything(killed) == before


def test_task_that_runs_again_after_a_compaction_adds_no_row(tmp_path: Path) -> None:
    table = local(tmp_path)
    writer = table.next_writer()
    for start in range(0, 30, 3):
        table.append(part([(start + n, "s", 2) for n in range(3)]), writer, {"job": 1})
    before = everything(table)
    compact(table)
    grow_old(table)
    compact(table)
    table.append(part([(n, "s", 2) for n in range(3)]), writer, {"job": 1})
    assert len(files(table)) == 2
    assert everything(table) == before


def test_no_part_is_deleted_for_a_damaged_file(tmp_path: Path) -> None:
    table = local(tmp_path)
    current = history(table, 2, jobs=3)
    parts = files(table)
    compact(table)
    written = min(Path(table.folder.path).glob("part-000000-*"))
    data = bytearray(written.read_bytes())
    data[20] ^= 1
    written.write_bytes(data)
    grow_old(table)
    with pytest.raises(UserError, match="the file is damaged"):
        sweep(table)
    written.unlink()
    assert set(files(table)) >= set(parts)
    assert rows_of(table) == current


def test_earlier_versions_refuse_a_compacted_file(tmp_path: Path) -> None:
    table = local(tmp_path)
    history(table, 2)
    compact(table)
    layouts = {
        file.base_name[:11]: pa.parquet.read_schema(file.path).metadata[b"vl3syn.layout"]
        for file in table.folder.files()
    }
    assert layouts.pop("part-000000") == b"3"  # they know 2 and refuse what is above
    assert set(layouts.values()) == {b"2"}


def test_table_in_an_object_store_is_compacted(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(Folder.at(f"{bucket}/compacted"), SCHEMA)
    current = history(table, 4, jobs=6)
    before = everything(table)
    done = compact(table)
    assert done.files_after == 2 < done.files_before == done.waiting
    assert everything(table) == before
    monkeypatch.setattr(compaction, "LIFETIME_S", -1.0)
    assert sweep(table) == done.files_before
    assert len(files(table)) == 2
    assert rows_of(table) == current
    assert everything(table) == before
