"""Parquet files of others: none runs code, whichever reader has it, and what cannot be read is an error."""

from __future__ import annotations

import base64
import gc
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray.data  # noqa: F401  # it registers the types that run code

from manifests import open_run
from manifests.storage import Folder
from model.training.data.shards import ShardSource
from pipeline.execution.index import open_pool
from pipeline.pools import Pool, pool_of
from pipeline.pools.images import IMAGE_ADDRESS, Failure
from pipeline.pools.reader import Images
from pipeline.pools.tables import columns_at
from tests.canary_files import picture

CANARIES = (
    "in_the_path in_a_part_not_needed deep_in_a_part_not_needed deep_in_the_path the_image the_bytes the_caption "
    "list_of_captions repeated_caption tensor_as_caption the_key the_url the_status the_id the_width deep_in_the_turns "
    "list_of_turns"
).split()


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `tests.canary_files`."""
    folder = tmp_path_factory.mktemp("canaries")
    subprocess.run([sys.executable, "-m", "tests.canary_files", str(folder)], check=True)
    return folder


def rows_of(pool: Pool) -> list[dict[str, Any]]:
    listing = pool.listing()
    rows: list[dict[str, Any]] = pool.index(listing.root, listing.shards).to_pylist()
    return rows


def errors_of(pool: Pool) -> list[str]:
    return [row["error"] for row in rows_of(pool) if row["error"]]


def refusal(call: Callable[[], Any]) -> list[str]:
    try:
        call()
    except ValueError as error:
        return [str(error)]
    return []


def index_of_images(file: Path) -> list[str]:
    return errors_of(pool_of(parquet=str(file)))


def index_with_own_ids(file: Path) -> list[str]:
    return errors_of(pool_of(parquet=str(file), id="id"))


def index_of_urls(file: Path) -> list[str]:
    return errors_of(pool_of(urls=str(file)))


def first_look_at_images(file: Path) -> list[str]:
    return refusal(lambda: open_pool(pool_of(parquet=str(file)), "/nowhere"))


def first_look_at_urls(file: Path) -> list[str]:
    return refusal(lambda: open_pool(pool_of(urls=str(file), id="id"), "/nowhere"))


def named_alt_text(file: Path) -> list[str]:
    return refusal(lambda: open_pool(pool_of(parquet=str(file), alt_text="caption"), "/nowhere"))


def img2dataset_parquet(file: Path) -> list[str]:
    return errors_of(pool_of(img2dataset=str(as_downloads(file))))


def img2dataset_sidecar(file: Path) -> list[str]:
    folder = as_downloads(file)
    (folder / "00000.tar").write_bytes(bytes(10240))
    return errors_of(pool_of(img2dataset=str(folder)))


def images_of_a_changed_file(file: Path) -> list[str]:
    """Indexed while it was plain, read when it is not."""
    pool_folder = file.parent / f"changed-{file.stem}"
    pool_folder.mkdir(exist_ok=True)
    shutil.copy(file.parent / "plain.parquet", pool_folder / "0.parquet")
    pool = pool_of(parquet=str(pool_folder))
    listing = pool.listing()
    rows = pool.index(listing.root, listing.shards)
    shutil.copy(file, pool_folder / "0.parquet")
    images = Images(pool, listing.root)
    images_read = [data for group in images.groups(rows.select(IMAGE_ADDRESS)) for data in images.read(group)]
    assert len(images_read) == 3
    return [data.error for data in images_read if isinstance(data, Failure)]


def columns_of_the_pool(file: Path) -> list[str]:
    names = ["id", "caption", "url", "image", "conversations", "key", "status", "width"]
    return refusal(lambda: columns_at(Folder.at(file.parent), file.name, names, np.arange(3)).to_pylist())


def training_shards(file: Path) -> list[str]:
    folder = file.parent / f"shards-{file.stem}"
    folder.mkdir(exist_ok=True)
    shutil.copy(file, folder / "shard-00000.parquet")

    def read() -> None:
        source = ShardSource("test", str(folder))
        for row in range(3):
            source.sample(row)

    return refusal(read)


def as_downloads(file: Path) -> Path:
    folder = file.parent / f"downloads-{file.stem}"
    folder.mkdir(exist_ok=True)
    shutil.copy(file, folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    return folder


READERS: dict[Callable[[Path], list[str]], set[str]] = {
    index_of_images: {"in_the_path", "deep_in_the_path", "the_image", "the_bytes"},
    index_with_own_ids: {"in_the_path", "deep_in_the_path", "the_image", "the_bytes", "the_id"},
    index_of_urls: {"the_url", "the_width"},
    first_look_at_images: {"in_the_path", "deep_in_the_path", "the_image", "the_bytes"},
    first_look_at_urls: {"the_url", "the_id", "the_width"},
    named_alt_text: {
        *("in_the_path", "deep_in_the_path", "the_image", "the_bytes"),
        *("the_caption", "list_of_captions", "repeated_caption", "tensor_as_caption"),
    },
    img2dataset_parquet: {"in_the_path", "deep_in_the_path", "the_key", "the_status"},
    img2dataset_sidecar: {"the_key", "the_status"},
    images_of_a_changed_file: {"the_image", "the_bytes"},
    columns_of_the_pool: set(CANARIES),
    training_shards: {"the_image", "the_bytes", "the_id", "deep_in_the_turns", "list_of_turns"},
}
"""The readers of files that others wrote, and the files of which each says what it does not read. The others it reads:
what is in the way there is no part of what it needs."""


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_readers_run_no_foreign_code(canaries: Path, reader: Callable[[Path], list[str]]) -> None:
    (canaries / "CANARY").unlink(missing_ok=True)
    said = {name: reader(canaries / f"{name}.parquet") for name in CANARIES}
    assert not (canaries / "CANARY").exists(), [name for name, texts in said.items() if not texts]
    for name in sorted(READERS[reader]):
        assert said[name], name
        assert len(set(said[name])) == 1 or reader is img2dataset_parquet, said[name]
        assert any(type_ in said[name][0] for type_ in ("extension<ray.data.arrow_", "ArrowTensorType")), said[name]
        assert "\n" not in said[name][0]
    assert {name for name, texts in said.items() if any("extension<" in text for text in texts)} <= READERS[reader]


def test_index_command_names_the_column_and_runs_no_code(
    canaries: Path, tmp_path: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    shutil.copy(canaries / "plain.parquet", pool / "a.parquet")
    shutil.copy(canaries / "in_the_path.parquet", pool / "b.parquet")
    result = vl3syn("index", "--parquet", pool / "*.parquet", "--run", tmp_path / "run")
    assert (result.returncode, not (canaries / "CANARY").exists()) == (0, True), result.stderr
    rows = open_run(tmp_path / "run").index.scan().sort("shard", "offset").collect().to_dicts()
    assert [(row["shard"], row["width"]) for row in rows] == [("a.parquet", 40)] * 3 + [("b.parquet", None)]
    assert "column 'image.path' is of the type extension<ray.data.arrow_pickled_object" in rows[3]["error"]
    refused = vl3syn("index", "--parquet", pool / "b.parquet", "--run", tmp_path / "other")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("vl3syn: parquet: b.parquet: column 'image.path' is of the type extension<")
    assert not (canaries / "CANARY").exists()


def test_rows_above_the_limit_are_errors_and_the_others_stay(tmp_path: Path) -> None:
    cells = [picture(), picture() + bytes(3000), picture()]
    pq.write_table(pa.table({"image": cells}), tmp_path / "0.parquet", row_group_size=1, compression="none")
    rows = rows_of(pool_of(parquet=str(tmp_path), max_image_bytes=1000))
    assert [(row["width"], row["error"]) for row in rows] == [
        (40, None),
        (None, f"too long: {len(cells[1]):,} bytes, max_image_bytes is 1,000"),
        (40, None),
    ]


def test_row_group_above_the_limit_leaves_the_others(tmp_path: Path) -> None:
    cells = [picture(), picture(), picture() + bytes(1 << 20), picture(), picture()]
    pq.write_table(pa.table({"image": cells}), tmp_path / "0.parquet", row_group_size=2, compression="zstd")
    rows = rows_of(pool_of(parquet=str(tmp_path), max_image_bytes=1 << 20))
    assert [row["width"] for row in rows] == [40, 40, None, None, 40]
    assert [row["key"] for row in rows] == list("01234")
    assert rows[2]["error"].startswith("decompression bomb: ")
    assert rows[2]["error"].endswith(" of column 'image' unpack to 1,048,780, more than 1,048,576")
    images, table = images_of(pool_of(parquet=str(tmp_path), max_image_bytes=1 << 20))
    alive = table.filter(pc.is_null(table["error"]))
    assert [data for group in images.groups(alive.select(IMAGE_ADDRESS)) for data in images.read(group)] == [
        picture()
    ] * 3


def images_of(pool: Pool) -> tuple[Images, pa.Table]:
    listing = pool.listing()
    return Images(pool, listing.root), pool.index(listing.root, listing.shards)


def test_list_of_millions_of_captions_is_refused(tmp_path: Path) -> None:
    captions = pa.array([[""] * 5_000_000, ["a fox"]])
    table = pa.table({"image": [picture()] * 2, "caption": captions})
    pq.write_table(table, tmp_path / "0.parquet", compression="zstd")
    assert (tmp_path / "0.parquet").stat().st_size < 100_000
    rows = rows_of(pool_of(parquet=str(tmp_path)))
    assert [row["error"] for row in rows] == [
        "decompression bomb: column 'caption.list.element' has 5,000,001 list entries"
    ] * 2


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.nulls(3_000_000, pa.binary())}), tmp_path / "0.parquet")
    assert (tmp_path / "0.parquet").stat().st_size < 10_000
    (row,) = rows_of(pool_of(parquet=str(tmp_path)))
    assert row["error"].startswith("broken Parquet: claims 3,000,000 rows in ")


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "zstd", "lz4"])
def test_delta_pages_are_read_with_their_nulls(tmp_path: Path, encoding: str, version: str, codec: str) -> None:
    cells = ([picture(), None, picture() + b"x"] * 300)[:-1]
    table = pa.table({"image": cells, "caption": [["a"], [], None] * 299 + [["a"], []]})
    how = {"use_dictionary": False, "column_encoding": {"image": encoding, "caption.list.element": encoding}}
    pq.write_table(table, tmp_path / "0.parquet", compression=codec, data_page_version=version, **how)
    rows = rows_of(pool_of(parquet=str(tmp_path)))
    assert [row["bytes"] for row in rows] == [cell and len(cell) for cell in cells]
    assert [row["alt_text"] for row in rows[:4]] == ["a", None, None, "a"]


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("count", [4, 1 << 28])
def test_delta_page_with_a_false_count_of_values_is_refused(tmp_path: Path, encoding: str, count: int) -> None:
    how = {"use_dictionary": False, "write_statistics": False, "compression": "none"}
    file = tmp_path / "0.parquet"
    pq.write_table(pa.table({"image": [b"A" * 4000] * 3}), file, column_encoding={"image": encoding}, **how)
    data = file.read_bytes()
    header = b"\x80\x01\x04\x03"  # blocks of 128, four parts, three values
    at = data.index(header)
    size = bytearray()
    while count > 127:
        size.append(count & 127 | 128)
        count >>= 7
    claim = header[:3] + bytes(size) + bytes([count, 0, 0, 0, 0, 0, 0])
    file.write_bytes(data[:at] + claim + data[at + len(claim) :])
    (row,) = rows_of(pool_of(parquet=str(tmp_path)))
    assert "column 'image' is damaged: a page of it claims more values than it holds" in row["error"]


def test_encrypted_column_is_an_error_not_a_crash(tmp_path: Path) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc, name-defined]
        def __init__(self, _: Any) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

        def unwrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64decode(key)

    how = encryption.EncryptionConfiguration(footer_key="f", column_keys={"k": ["image"]}, plaintext_footer=True)
    keys = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), how)
    table = pa.table({"image": [picture()] * 3})
    pq.write_table(table, tmp_path / "0.parquet", encryption_properties=keys)
    (row,) = rows_of(pool_of(parquet=str(tmp_path)))
    assert row["error"].startswith("broken Parquet: Cannot decrypt ColumnMetadata.")


def test_image_in_a_repeated_column_is_read(tmp_path: Path) -> None:
    images = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), [picture(), picture() + b"x"])
    pq.write_table(pa.table({"image": images}), tmp_path / "0.parquet")
    images_, table = images_of(pool_of(parquet=str(tmp_path)))
    assert table["error"].to_pylist() == [None] * 3
    read = [data for group in images_.groups(table.select(IMAGE_ADDRESS)) for data in images_.read(group)]
    assert read == [picture(), picture() + b"x", picture()]


def test_row_groups_read_singly_keep_no_footers_in_memory(tmp_path: Path) -> None:
    columns = {"image": [picture()] * 1500} | {f"c{n}": range(1500) for n in range(20)}
    pq.write_table(pa.table(columns), tmp_path / "0.parquet", row_group_size=5)
    images, table = images_of(pool_of(parquet=str(tmp_path)))
    groups = list(images.groups(table.select(IMAGE_ADDRESS)))
    gc.collect()
    gc.disable()
    try:
        for group in groups[:5]:
            images.read(group)
        before = sum(type(thing).__name__ == "FileMetaData" for thing in gc.get_objects())
        for group in groups:
            assert images.read(group) == [picture()] * 5
        after = sum(type(thing).__name__ == "FileMetaData" for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before + 1


def test_small_row_groups_are_read_together_without_a_bad_one(tmp_path: Path) -> None:
    cells = [picture() + bytes([n]) for n in range(20)]
    cells[7] += bytes(1 << 20)
    pq.write_table(pa.table({"image": cells}), tmp_path / "0.parquet", row_group_size=3, compression="zstd")
    rows = rows_of(pool_of(parquet=str(tmp_path), max_image_bytes=1 << 20))
    assert [row["width"] for row in rows] == [None if n in (6, 7, 8) else 40 for n in range(20)]
    assert [row["key"] for row in rows] == [str(n) for n in range(20)]
