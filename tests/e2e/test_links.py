"""Links, pipes and odd names in a pool: nothing outside of it is read, nothing waits, and what is odd is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.execution.index import open_pool
from pipeline.pools import Pool, pool_of
from pipeline.pools.images import IMAGE_ADDRESS, Failure
from pipeline.pools.listing import shards_of
from pipeline.pools.reader import Images
from tests.conftest import jpeg
from tests.pipeline.pools.test_side_files import tar

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
OUT = "link: leads out of the pool, not followed (follow_links of the pool allows it)"
NO_FILE = "not a file: a pipe, socket or device, not opened"


def rows_of(pool: Pool) -> dict[str, dict[str, Any]]:
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards).to_pylist()
    assert len({(row["shard"], row["key"]) for row in rows}) == len(rows)
    return {f"{row['shard']} {row['key']}".strip(): row for row in rows}


def errors_of(pool: Pool) -> dict[str, str | None]:
    return {key: row["error"] for key, row in rows_of(pool).items()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is none of the pool's business."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.jpg").write_bytes(jpeg(40, 30))
    tar(folder / "secret.tar", ["a.png", "a.txt"])
    pq.write_table(pa.table({"image": [jpeg(40, 30)]}), folder / "secret.parquet")
    return folder


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """img2dataset's files format: two images, `a` and `b`."""
    folder = tmp_path / "downloads"
    (folder / "00000").mkdir(parents=True)
    for name in "ab":
        (folder / "00000" / f"{name}.jpg").write_bytes(jpeg(40, 30))
    sidecar = pa.table({"key": list("abcd"), "status": ["success"] * 4, "url": list("abcd")})
    pq.write_table(sidecar, folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    return folder


def test_links_out_of_a_downloads_folder_are_errors(downloads: Path, outside: Path) -> None:
    (downloads / "00000" / "c.jpg").symlink_to(outside / "secret.jpg")
    os.mkfifo(downloads / "00000" / "d.jpg")
    (downloads / "00000" / "e.jpg").symlink_to("a.jpg")
    assert errors_of(pool_of(img2dataset=str(downloads))) == {
        "00000 a.jpg": None,
        "00000 b.jpg": None,
        "00000 c.jpg": OUT,
        "00000 d.jpg": NO_FILE,
        "00000 e.jpg": None,
    }
    assert rows_of(pool_of(img2dataset=str(downloads)))["00000 c.jpg"]["url"] == "c"
    assert errors_of(pool_of(img2dataset=str(downloads), follow_links=True))["00000 c.jpg"] is None


def test_downloads_folder_may_be_a_link(downloads: Path, tmp_path: Path) -> None:
    shutil.move(downloads / "00000", tmp_path / "elsewhere")
    (downloads / "00000").symlink_to(tmp_path / "elsewhere")
    assert errors_of(pool_of(img2dataset=str(downloads))) == {"00000 00000": OUT}
    linked = errors_of(pool_of(img2dataset=str(downloads), follow_links=True))
    assert (linked["00000 a.jpg"], linked["00000 b.jpg"]) == (None, None)


@pytest.mark.parametrize("name", ["00000.tar", "00000.parquet"])
@pytest.mark.timeout(20)
def test_pipe_among_downloads_is_not_opened(downloads: Path, name: str) -> None:
    (downloads / name).unlink(missing_ok=True)
    os.mkfifo(downloads / name)
    (error,) = errors_of(pool_of(img2dataset=str(downloads))).values()
    assert error == NO_FILE


@pytest.mark.parametrize(("kind", "ending"), [("tars", "tar"), ("parquet", "parquet")])
@pytest.mark.parametrize("glob", ["", "/*", "/**"])
@pytest.mark.timeout(20)
def test_links_out_of_a_folder_of_shards_are_errors(
    tmp_path: Path, outside: Path, kind: str, ending: str, glob: str
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    shutil.copy(outside / f"secret.{ending}", pool / f"a.{ending}")
    (pool / f"b.{ending}").symlink_to(outside / f"secret.{ending}")
    (pool / f"c.{ending}").symlink_to(f"a.{ending}")
    os.mkfifo(pool / f"d.{ending}")
    (pool / "folder").symlink_to(outside)
    where = str(pool) + (f"{glob}.{ending}" if glob == "/*" else glob and f"{glob}/*.{ending}")
    errors = {key.partition(" ")[0]: error for key, error in errors_of(pool_of(**{kind: where})).items()}
    assert errors == {f"a.{ending}": None, f"b.{ending}": OUT, f"c.{ending}": None, f"d.{ending}": NO_FILE}
    passed_over = pool_of(**{kind: where}).listing().passed_over
    assert passed_over == {"link: leads out of the pool (folder)": 1}


def test_links_among_shards_are_followed_when_the_pool_allows_it(tmp_path: Path, outside: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "b.tar").symlink_to(outside / "secret.tar")
    (pool / "folder").symlink_to(outside)
    (outside / "loop").symlink_to(pool)
    assert errors_of(pool_of(tars=str(pool), follow_links=True)) == {
        "b.tar a.png": None,
        "folder/secret.tar a.png": None,
    }


def test_shard_that_the_user_names_may_be_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "b.tar").symlink_to(outside / "secret.tar")
    assert errors_of(pool_of(tars=str(tmp_path / "pool" / "b.tar"))) == {"b.tar a.png": None}
    (tmp_path / "linked").symlink_to(outside)
    assert errors_of(pool_of(tars=str(tmp_path / "linked" / "*.tar"))) == {"secret.tar a.png": None}


def test_shard_of_an_earlier_run_that_is_a_link_has_not_changed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "b.tar").symlink_to(outside / "secret.tar")
    (shard,) = shards_of(pool_of(tars=str(tmp_path / "pool")).listing().shards)
    assert (shard.bytes, shard.problem) == ((outside / "secret.tar").stat().st_size, OUT)


@pytest.mark.parametrize("kind", ["images", "img2dataset"])
@pytest.mark.timeout(20)
def test_image_that_became_a_link_is_not_read(downloads: Path, outside: Path, kind: str) -> None:
    pool = pool_of(**{kind: str(downloads / "00000" if kind == "images" else downloads)})
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards)
    rows = rows.take([row for row, error in enumerate(rows["error"].to_pylist()) if error is None])
    (downloads / "00000" / "a.jpg").unlink()
    (downloads / "00000" / "a.jpg").symlink_to(outside / "secret.jpg")
    (downloads / "00000" / "b.jpg").unlink()
    os.mkfifo(downloads / "00000" / "b.jpg")

    def read() -> list[bytes | Failure]:
        images = Images(pool, listing.root)
        return [data for group in images.groups(rows.select(IMAGE_ADDRESS)) for data in images.read(group)]

    assert read() == [Failure(OUT), Failure(NO_FILE)]
    shutil.move(downloads / "00000", downloads / "moved")
    (downloads / "00000").symlink_to(outside)
    shutil.copy(outside / "secret.jpg", outside / "a.jpg")
    if kind == "img2dataset":
        first, second = read()
        assert (first, isinstance(second, Failure)) == (Failure(OUT), True)


ODD = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(("kind", "ending"), [("tars", "tar"), ("parquet", "parquet")])
def test_invalid_name_beside_shards_does_not_block_the_pool(
    tmp_path: Path, outside: Path, kind: str, ending: str
) -> None:
    pool = tmp_path / "pool"
    (pool / ODD).mkdir(parents=True)
    shutil.copy(outside / f"secret.{ending}", pool / f"a.{ending}")
    shutil.copy(outside / f"secret.{ending}", pool / f"{ODD}.{ending}")
    shutil.copy(outside / f"secret.{ending}", pool / ODD / f"b.{ending}")
    (pool / f"{ODD}.txt").write_text("x")
    for where in (pool, pool / "**" / f"*.{ending}"):
        errors = {key.rpartition(" ")[0]: error for key, error in errors_of(pool_of(**{kind: str(where)})).items()}
        odd = "odd name: not valid UTF-8, rename the file"
        assert errors == {f"a.{ending}": None, f"caf\\xe9.{ending}": odd, f"caf\\xe9/b.{ending}": odd}
        assert pool_of(**{kind: str(where)}).listing().passed_over == {"odd name: not valid UTF-8 (caf\\xe9.txt)": 1}


def test_invalid_names_among_downloads_are_errors(downloads: Path) -> None:
    (downloads / f"{ODD}.txt").write_text("x")
    (downloads / "00000" / f"{ODD}.jpg").write_bytes(jpeg(40, 30))
    pool = pool_of(img2dataset=str(downloads))
    errors = errors_of(pool)
    assert (errors["00000 a.jpg"], errors["00000 caf\\xe9.jpg"]) == (None, "odd name: not valid UTF-8, rename the file")
    assert pool.listing().passed_over == {"odd name: not valid UTF-8 (caf\\xe9.txt)": 1}


def test_index_command_names_invalid_files(tmp_path: Path, outside: Path, vl3syn: Vl3syn) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    shutil.copy(outside / "secret.tar", pool / "a.tar")
    (pool / f"{ODD}.txt").write_text("x")
    done = vl3syn("index", "--tars", pool / "*.tar", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "pool: passed over: odd name: not valid UTF-8 (caf\\xe9.txt) 1\n" in done.stderr
    assert len(open_pool(pool_of(tars=str(pool)), str(tmp_path / "run")).shards) == 1
