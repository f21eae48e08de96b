"""Publications of images that are large: row groups by bytes, and images that are too long for any."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.parquet import Parquet
from manifests.shards import GROUP, GROUP_BYTES, group_ends
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.conftest import jpeg
from tests.runs import run

pytestmark = pytest.mark.usefixtures("engine")
MIB = 1 << 20


def padded(data: bytes, length: int) -> bytes:
    """A JPEG of that length: what stands behind its end mark is no part of the picture."""
    return data + bytes(length - len(data))


def published(pool: dict[str, str], folder: Path) -> list[dict[str, int]]:
    """Run with captions, publish, read everything back; of each row group its rows and the bytes of its images."""
    with chat_server() as server:
        # The image is larger than `longest`, so that the server gets a small one.
        engine = {"kind": "server", "url": server.url, "concurrency": 4}
        caption = {"stage": "short_caption", "model": "m", "engine": engine, "longest": 64}
        opened, _ = run({"pool": pool, "stages": [caption]}, folder / "run")
    how = Publish.model_validate({"rows_per_shard": 1000})
    done = publish(opened, recipe_of(opened), how, Folder.at(folder / "out"), "out")
    assert (done.shards, dict(done.left_out)) == (1, {})
    groups = []
    with pq.ParquetFile(folder / "out/data/shard-00000.parquet") as file:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=["image", "sha256"]).to_pylist()
            assert all(hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["sha256"] for row in rows)
            groups.append({"rows": len(rows), "bytes": sum(len(row["image"]["bytes"]) for row in rows)})
    return groups


def links(folder: Path, count: int, length: int) -> dict[str, str]:
    """A pool of so many images of that length in bytes, which take the place of one on the disk."""
    folder.mkdir()
    first = folder / "000.jpg"
    first.write_bytes(padded(jpeg(128, 128), length))
    for number in range(1, count):
        os.link(first, folder / f"{number:03d}.jpg")
    return {"images": str(folder)}


@pytest.mark.usefixtures("here")
def test_row_groups_hold_at_most_256_mib_of_images(tmp_path: Path) -> None:
    groups = published(links(tmp_path / "pool", 3, 90 * MIB), tmp_path)
    assert groups == [{"rows": rows, "bytes": rows * 90 * MIB} for rows in (2, 1)]


@pytest.mark.slow
def test_pool_of_more_than_2_gib_of_images_is_published(tmp_path: Path) -> None:
    groups = published(links(tmp_path / "pool", 9, 250 * MIB), tmp_path)
    assert groups == [{"rows": 1, "bytes": 250 * MIB}] * 9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_row_group_above_2_gib_of_a_pool_is_read(tmp_path: Path, kind: str) -> None:
    image = padded(jpeg(128, 128), 36 * MIB)
    cells = pa.array([image] * 8, pa.binary())
    if kind == "struct":
        cells = pa.StructArray.from_arrays([cells, pa.nulls(8, pa.string())], names=["bytes", "path"])
    table = pa.table({"image": pa.chunked_array([cells] * 8)})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, write_statistics=False)
    del table, cells
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
    groups = published({"parquet": str(tmp_path / "a.parquet")}, tmp_path)
    assert sum(group["rows"] for group in groups) == 64


def test_long_row_group_is_read_in_portions(tmp_path: Path) -> None:
    image = padded(jpeg(128, 128), 2 * MIB)
    table = pa.table({"image": pa.chunked_array([pa.array([image], pa.binary())] * 100)})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, write_statistics=False)
    del table
    with pa.OSFile(str(tmp_path / "a.parquet")) as file:
        before = pa.total_allocated_bytes()
        batches = Parquet(file).batches(["image"], 8)
        assert next(batches)["image"].to_pylist() == [image] * 8
        assert pa.total_allocated_bytes() - before < 64 * MIB  # of 200
        assert sum(batch.num_rows for batch in batches) == 92


@pytest.mark.parametrize(
    ("lengths", "ends"),
    [
        ([], []),
        ([1] * (2 * GROUP + 1), [GROUP, 2 * GROUP, 2 * GROUP + 1]),
        ([GROUP_BYTES, 0, 1], [2, 3]),
        ([GROUP_BYTES + 1, GROUP_BYTES + 1], [1, 2]),
        ([1, GROUP_BYTES + 1, 1], [1, 2, 3]),
        ([GROUP_BYTES // 2] * 4, [2, 4]),
    ],
)
def test_row_groups_are_limited_by_rows_and_bytes(lengths: list[int], ends: list[int]) -> None:
    assert group_ends(lengths) == ends


@pytest.mark.parametrize("kind", ["images", "tars"])
@pytest.mark.parametrize("format_", ["JPEG", "BMP"])
def test_image_above_a_billion_bytes_is_an_error(tmp_path: Path, kind: str, format_: str) -> None:
    data = io.BytesIO()
    Image.new("RGB", (40, 40)).save(data, format_)
    pool, name, length = tmp_path / "pool", f"a.{format_.lower()}", 1_000_000_001
    pool.mkdir()
    with (pool / (name if kind == "images" else "a.tar")).open("wb") as file:  # a hole: it takes no place on the disk
        if kind == "tars":
            member = tarfile.TarInfo(name)
            member.size = length
            file.write(member.tobuf())
        file.write(data.getvalue())
        file.truncate(-(-length // 512) * 512 + 1536 if kind == "tars" else length)
    where = str(pool / "*.tar") if kind == "tars" else str(pool)
    opened, _ = run({"pool": {kind: where}, "stages": []}, tmp_path / "run")
    rows = opened.index.scan().select("bytes", "error").collect()
    assert rows.rows() == [(length, "too long: 1,000,000,001 bytes > 1,000,000,000")]
