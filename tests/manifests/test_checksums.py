"""Damaged, missing and older parts: each is named, and none changes a value or a verdict in silence."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from core.errors import UserError
from manifests import Run, funnel, open_run
from manifests.contents import content_rows, contents_table
from manifests.run import index_table, stage_folder
from manifests.schemas import INDEX, column, table_schema
from manifests.storage import Folder
from manifests.tables import Table
from tests.runs import run as compute

WRITES = pa.schema(
    [
        column("score", pa.float32(), "a score", 0, 1),
        column("caption", pa.string(), "a caption"),
        column("vector", pa.list_(pa.float16(), 4), "an embedding"),
    ]
)
ROWS = 300


def small_run(folder: Path) -> Run:
    """An index and one stage with a rule; some rows failed, some have no score."""
    base = Folder.at(folder)
    stages = [{"stage": "s", "table": "s-0", "keep": {"min_score": 0.5}}]
    recipe = {"vl3syn": "test", "name": "x", "pool": {"images": "/nowhere"}, "stages": stages}
    base.write("recipe.yaml", yaml.safe_dump(recipe).encode())
    rng, ids = random.Random(0), list(range(ROWS))
    index = pl.DataFrame({"id": ids, "shard": [f"{i % 3}.tar" for i in ids], "key": [f"{i}.jpg" for i in ids]})
    errors = pa.array(["broken: header" if i % 50 == 7 else None for i in ids], pa.string())
    known = {**{c: index[c].to_arrow() for c in index.columns}, "error": errors, "retry": pa.array([False] * ROWS)}
    table = index_table(base)
    writer = table.next_writer()
    for part in (slice(0, 100), slice(100, ROWS)):
        rows = pa.table({f.name: known.get(f.name, pa.nulls(ROWS, f.type)) for f in INDEX})
        table.append(rows.slice(part.start, part.stop - part.start), writer, {"stage": "index"})
    good = [i for i in ids if errors[i].as_py() is None]
    stage = Table(stage_folder(base, "s-0"), table_schema(WRITES))
    facts = {
        "id": good,
        "score": pa.array([None if i % 11 == 0 else rng.random() for i in good], pa.float32()),
        "caption": [f"a cat {i % 5}" for i in good],
        "vector": pa.array([[0.5] * 4] * len(good), WRITES.field("vector").type),
        "error": pa.array(["cannot decode: x" if i % 40 == 3 else None for i in good], pa.string()),
        "retry": [False] * len(good),
    }
    stage.append(pa.table(facts), stage.next_writer(), {"weights": "abc"})
    return open_run(str(folder))


def everything(run: Run) -> tuple[object, ...]:
    """All values and verdicts."""
    return (
        run.manifest().collect().to_dicts(),
        run.facts("s").collect().sort("id").to_dicts(),
        funnel(run).as_json(),
        [stage.table.provenance() for stage in run.stages],
    )


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*"))


@pytest.mark.parametrize("bits", [100, pytest.param(400, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("folder", ["index", "stages/s-0"])
def test_flipped_bit_is_an_error_of_its_part_or_changes_nothing(tmp_path: Path, folder: str, bits: int) -> None:
    run = small_run(tmp_path / "run")
    before = everything(run)
    part = parts(tmp_path / "run" / folder)[0]
    sound = part.read_bytes()
    rng, refused = random.Random(29), []
    for bit in rng.sample(range(8 * len(sound)), bits):
        part.write_bytes(sound[: bit // 8] + bytes([sound[bit // 8] ^ (1 << bit % 8)]) + sound[bit // 8 + 1 :])
        try:
            assert everything(open_run(str(tmp_path / "run"))) == before, f"bit {bit} changed what is read"
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > bits * 7 // 8
    for line in refused:
        assert line.startswith(f"{part}: the file is damaged (")
        assert line.endswith("); delete it and run again: its rows are computed again")
        assert "\n" not in line
    part.write_bytes(sound)
    assert everything(open_run(str(tmp_path / "run"))) == before


def test_parts_have_standard_page_checksums(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    part = parts(tmp_path / "run" / "stages")[0]
    chunk = pq.read_metadata(part).row_group(0).column(2)
    data = bytearray(part.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 4
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(pa.BufferReader(bytes(data)), page_checksum_verification=True)


@pytest.mark.parametrize("keep", [0, 3, 11, 500, -1, -9])
def test_truncated_part_is_named(tmp_path: Path, keep: int) -> None:
    run = small_run(tmp_path / "run")
    part = parts(tmp_path / "run" / "stages")[0]
    part.write_bytes(part.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"{part}: the file is damaged .* delete it and run again"):
        run.verdict()


@pytest.mark.parametrize("command", ["funnel", "sweep", "explain"])
def test_command_names_a_damaged_part_in_one_line(
    tmp_path: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]], command: str
) -> None:
    small_run(tmp_path / "run")
    part = parts(tmp_path / "run" / "stages")[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 5] ^= 1
    part.write_bytes(bytes(data))
    ended = vl3syn(command, tmp_path / "run", *(["7.jpg"] if command == "explain" else []))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert str(part) in ended.stderr


def test_parts_without_checksums_are_read(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    before = everything(run)
    for part in parts(tmp_path / "run"):
        table = pq.read_table(part)
        metadata = {k: v for k, v in table.schema.metadata.items() if k == b"vl3syn"}
        pq.write_table(table.replace_schema_metadata(metadata), part, compression="zstd")  # as it was written before
    assert everything(open_run(str(tmp_path / "run"))) == before


def test_missing_part_of_the_index_is_an_error(
    tmp_path: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = small_run(tmp_path / "run")
    # Replaced rows are legitimate: a shard that changed has new ids, and its old facts stay.
    new = run.index.scan().filter(pl.col("shard") == "0.tar").with_columns(pl.col("id") + 1000).collect()
    run.index.append(new.to_arrow(), run.index.next_writer(), {})
    assert funnel(run).rows == ROWS
    parts(tmp_path / "run" / "index")[1].unlink()
    ended = vl3syn("funnel", tmp_path / "run", "--json")
    assert ended.returncode == 1
    assert ended.stdout == ""
    # Ids 100 to 299 were in it, those of four with errors have no facts
    assert f"{tmp_path / 'run' / 'index'}: a part is missing: 196 images have facts, but no row" in ended.stderr


def test_columns_missing_in_old_parts_are_null_new_ones_ignored(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "t")
    first = table_schema(pa.schema([column("score", pa.float32(), "")]))
    second = table_schema(pa.schema([column("score", pa.float32(), ""), column("sharp", pa.int32(), "")]))
    old, new = Table(folder, first), Table(folder, second)
    part = old.append(pa.table([[1], [0.5], [None], [False]], schema=first), old.next_writer(), {"v": 1})
    new.append(pa.table([[2], [0.25], [9], [None], [False]], schema=second), new.next_writer(), {"v": 2})
    rows = [(1, 0.5, None), (2, 0.25, 9)]
    assert sorted(new.scan().select("id", "score", "sharp").collect().iter_rows()) == rows
    assert new.read(part, ["id", "sharp"]).to_pylist() == [{"id": 1, "sharp": None}]
    assert sorted(old.scan().select("id", "score").collect().iter_rows()) == [row[:2] for row in rows]
    # An old version wrote the newest part: the columns of the others do not go.
    old.append(pa.table([[3], [0.75], [None], [False]], schema=first), old.next_writer(), {"v": 1})
    stored = Table.stored(folder)
    assert set(stored.schema.names) == set(second.names)
    assert stored.provenance() == {"v": 1}
    assert sorted(stored.scan().select("id", "score", "sharp").collect().iter_rows()) == [*rows, (3, 0.75, None)]


def test_columns_missing_in_an_earlier_index_are_null(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    later = pa.schema([*INDEX, column("media_type", pa.string(), "image or video")])
    index = Table(run.folder.join("index"), later, key="shard")
    assert index.scan().collect()["media_type"].to_list() == [None] * ROWS


@pytest.mark.parametrize("local", [True, False])
def test_column_of_another_type_is_an_error_with_both_types(tmp_path: Path, bucket: str, local: bool) -> None:
    folder = Folder.at(tmp_path / "t" if local else f"{bucket}/types")
    first, second = (table_schema(pa.schema([column("score", t, "")])) for t in (pa.string(), pa.float32()))
    old, new = Table(folder, first), Table(folder, second)
    part = old.append(pa.table([[1], ["high"], [None], [False]], schema=first), old.next_writer(), {})
    new.append(pa.table([[2], [0.5], [None], [False]], schema=second), new.next_writer(), {})
    for read in (lambda: new.scan().collect(), lambda: new.read(part, ["score"]), lambda: Table.stored(folder).scan()):
        with pytest.raises(UserError, match=rf"{part}: column score is string where float is read"):
            read()
    assert sorted(new.scan(["id"]).collect()["id"]) == [1, 2]  # what is not read does not matter


def test_parts_in_an_object_store_may_lack_columns(bucket: str) -> None:
    folder = Folder.at(f"{bucket}/checked")
    first = table_schema(pa.schema([column("score", pa.float32(), "")]))
    second = table_schema(pa.schema([column("score", pa.float32(), ""), column("sharp", pa.int32(), "")]))
    old, new = Table(folder, first), Table(folder, second)
    old.append(pa.table([[1], [0.5], [None], [False]], schema=first), old.next_writer(), {})
    new.append(pa.table([[2], [0.25], [9], [None], [False]], schema=second), new.next_writer(), {})
    assert sorted(new.scan().select("id", "sharp").collect().iter_rows()) == [(1, None), (2, 9)]
    assert new.locate()[0].collect().sort("id")["part"].to_list() == [0, 1]


@pytest.mark.parametrize("section", ["page", "footer"])
def test_parts_in_an_object_store_are_checked(bucket: str, section: str) -> None:
    table = Table(
        Folder.at(f"{bucket}/checked-{section}"), table_schema(pa.schema([column("score", pa.float32(), "")]))
    )
    rows = pa.table([[1], [0.5], [None], [False]], schema=table.schema)
    part = table.append(rows, table.next_writer(), {})
    sound = table.folder.read(part)
    chunk = pq.read_metadata(pa.BufferReader(sound)).row_group(0).column(1)
    end_of_page = chunk.data_page_offset + chunk.total_compressed_size
    byte = {"page": end_of_page - 20, "footer": len(sound) - 300}[section]
    table.folder.write(part, sound[:byte] + bytes([sound[byte] ^ 8]) + sound[byte + 1 :])
    with pytest.raises((UserError, OSError, pl.exceptions.PolarsError)):
        table.scan().collect()
    with pytest.raises(UserError, match=f"{part}: the file is damaged"):
        table.read(part, ["id", "score", "error", "retry"])


@pytest.mark.usefixtures("engine")
def test_deleted_part_is_computed_again(tmp_path: Path, make_images: Callable[[Path, int], Path]) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 5))}
    recipe = {"name": "t", "pool": pool, "stages": [{"stage": "aspect_ratio"}]}
    before = compute(recipe, tmp_path / "run")[0].manifest().collect()
    for part in parts(tmp_path / "run"):
        part.write_bytes(part.read_bytes()[:-20])
        with pytest.raises(UserError, match=f"{part}: the file is damaged .*; delete it and run again"):
            compute(recipe, tmp_path / "run")
        part.unlink()
        after, _ = compute(recipe, tmp_path / "run")
        assert after.manifest().collect().equals(before)


def test_error_of_a_damaged_contents_part_says_what_is_lost(tmp_path: Path) -> None:
    table = contents_table(Folder.at(tmp_path))
    part = Path(table.folder.path) / table.append(content_rows([1], [(3, b"x" * 32)]), table.next_writer(), {})
    part.write_bytes(part.read_bytes()[:-20])
    for read in (table.scan, table.every_id, table.locate, table.provenance, lambda: table.read(part.name, ["id"])):
        with pytest.raises(
            UserError, match=rf"^{part}: the file is damaged .*; copy it back; if you delete it, images"
        ):
            read()
