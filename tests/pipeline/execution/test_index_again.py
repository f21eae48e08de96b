"""Parquet files that have changed, and are then read again: images and films keep the ids of their latest version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import Run
from pipeline.execution.failed import mark
from tests.conftest import jpeg
from tests.film_files import film
from tests.runs import run_here

pytestmark = pytest.mark.usefixtures("here")
KEYS = {"with paths": "{}.bin", "without paths": None}


def write(path: Path, name: str, cells: list[bytes], key: str | None) -> None:
    """A file in the form of `datasets`: a struct of bytes and, with a `key`, paths."""
    column = [{"bytes": cell, "path": key and key.format(number)} for number, cell in enumerate(cells)]
    path.parent.mkdir(exist_ok=True)
    # Cells of one length make files of one length.
    pq.write_table(pa.table({name: column}), path, compression="none", use_dictionary=False, write_statistics=False)


def ids(run: Run) -> list[int]:
    """The ids in the order of the rows."""
    return run.index.scan(["id", "offset"]).sort("offset").collect()["id"].to_list()


def ids_of_three_runs(folder: Path, pool: Mapping[str, str], name: str, cells: list[bytes], key: str | None) -> Any:
    """The ids of the first version, of the second, in which row 2 is broken, and of the second when it is mended."""
    path, recipe = folder / "pool" / "a.parquet", {"pool": dict(pool), "stages": []}
    write(path, name, cells[::-1][1:], key)
    first, _ = run_here(recipe, folder / "run")
    before = ids(first)
    broken = [b"\0" * len(cell) if number == 2 else cell for number, cell in enumerate(cells)]
    write(path, name, broken, key)
    second, _ = run_here(recipe, folder / "run")
    changed = ids(second)
    write(path, name, cells, key)
    assert mark(second, "index").marked == 1
    third, jobs = run_here(recipe, folder / "run")
    assert jobs["index"].computed == len(cells), "the whole shard is read again"
    assert third.index.scan(["error"]).collect()["error"].null_count() == len(cells)
    return before, changed, ids(third)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_changed_table_of_images_is_read_again(tmp_path: Path, key: str | None) -> None:
    cells = [jpeg(20 + number, 20, number) for number in range(12)]
    before, changed, again = ids_of_three_runs(tmp_path, {"parquet": f"{tmp_path}/pool"}, "image", cells, key)
    assert not set(before) & set(changed)
    assert again == changed


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_changed_table_of_films_is_read_again(tmp_path: Path, key: str | None) -> None:
    films = [film(tmp_path / f"{frames}.mp4", frames=frames).read_bytes() for frames in (5, 6, 7)]
    before, changed, again = ids_of_three_runs(tmp_path, {"videos": f"{tmp_path}/pool"}, "video", films * 4, key)
    assert not set(before) & set(changed)
    assert again == changed


def test_facts_of_a_table_are_about_its_own_images(tmp_path: Path) -> None:
    path = tmp_path / "pool" / "a.parquet"
    recipe = {"pool": {"parquet": f"{tmp_path}/pool"}, "stages": [{"stage": "hashes"}]}

    def hashes(run: Run) -> dict[str, int | None]:
        facts = run.facts("hashes", ["id", "content_hash"])
        rows = run.index.scan(["id", "key"]).join(facts, on="id", how="left").select("key", "content_hash").collect()
        return dict(rows.iter_rows())

    cells = [jpeg(20 + number, 20, number) for number in range(4)]
    write(path, "image", cells[::-1], "{}.jpg")
    run_here(recipe, tmp_path / "run")
    write(path, "image", [*cells, b"broken"], "{}.jpg")
    run, _ = run_here(recipe, tmp_path / "run")
    expected = hashes(run)
    assert list(map(bool, pl.Series(expected.values()))) == [True] * 4 + [False]
    assert mark(run, "index").marked == 1
    run, jobs = run_here(recipe, tmp_path / "run")
    assert hashes(run) == expected
    assert jobs["hashes"].computed == 0
