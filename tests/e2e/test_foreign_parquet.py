"""Parquet files made to do harm: none runs code, whichever reader has it, and a few bytes do not fill the memory."""

from __future__ import annotations

import base64
import gc
import io
import json
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
from PIL import Image

from manifests import open_run
from manifests.storage import Folder
from model.training.data.shards import ShardSource
from pipeline.execution.index import open_pool
from pipeline.pools import Pool, pool_of
from pipeline.pools.images import IMAGE_ADDRESS, Failure
from pipeline.pools.reader import Images
from pipeline.pools.tables import columns_at

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


# Bombs: each reader in a process of its own, whose memory is measured

LIMIT = 500  # MB above what the process takes with its imports; 64 values of 8 MiB are 512 MiB as bytes alone


BOMBS = ("dictionary", "struct", "delta", "many row groups", "zstd page", "gzip page", "brotli page", "caption", "path")


def bomb(folder: Path, kind: str) -> Path:
    """A small file of large values: a picture with 8 MiB of zeros behind it, or a text as long, in 64 rows."""
    image = pa.array([picture() + bytes(8 << 20)])
    text = pa.array(["x" * (8 << 20)])
    many = pa.array([0] * 64, pa.int32())
    columns: dict[str, Any] = {"image": pa.array([picture()] * 64), "n": pa.array(range(64))}
    how: dict[str, Any] = {"store_schema": False}
    if kind == "dictionary":
        columns["image"] = pa.DictionaryArray.from_arrays(many, image)
    elif kind == "struct":
        cells = [pa.DictionaryArray.from_arrays(many, image), pa.array([None] * 64, pa.string())]
        columns["image"] = pa.StructArray.from_arrays(cells, names=["bytes", "path"])
    elif kind == "delta":
        columns["image"] = image.take(many)
        how |= {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}}
    elif kind in ("zstd page", "gzip page", "brotli page"):
        columns["image"] = image.take(many)
        how |= {"use_dictionary": False, "compression": kind.split()[0]}
    elif kind == "caption":
        columns["caption"] = pa.DictionaryArray.from_arrays(many, text)
    elif kind == "path":
        cells = [columns["image"], pa.DictionaryArray.from_arrays(many, text)]
        columns["image"] = pa.StructArray.from_arrays(cells, names=["bytes", "path"])
    elif kind == "many row groups":
        columns["image"] = pa.DictionaryArray.from_arrays(many, image)
        how |= {"row_group_size": 8}
    file = folder / f"{kind}.parquet"
    pq.write_table(pa.table(columns), file, **{"compression": "zstd", **how})
    assert file.stat().st_size < 600_000
    return file


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "PNG")
    return data.getvalue()


URLS = 1000  # 8 GiB of text
HARNESS = """
import json, os, resource, sys
import numpy as np
from manifests.storage import Folder
from model.training.data.shards import ShardSource
from pipeline.pools import Pool, pool_of
from pipeline.pools.images import IMAGE_ADDRESS
from pipeline.pools.reader import Images
from pipeline.pools.tables import columns_at


def index(**pool):
    pool = pool_of(**pool)
    listing = pool.listing()
    return pool, listing.root, pool.index(listing.root, listing.shards)


def rows(**pool):
    rows = index(**pool)[2].to_pylist()
    return [[row["width"], row["bytes"], (row["error"] or "").partition(":")[0], row["alt_text"]] for row in rows]


def images(path):
    pool, root, rows = index(parquet=path)
    images = Images(pool, root)
    return [len(data) for group in images.groups(rows.select(IMAGE_ADDRESS)) for data in images.read(group)]


def columns(folder, name):
    return columns_at(Folder.at(folder), name, ["n", "caption"], np.arange(64)).num_rows


def shards(folder):
    return len(ShardSource("test", folder).sample(0).text)


for call in json.load(sys.stdin):
    if os.fork():
        os.wait()
        continue
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        result = eval(call)
    except ValueError as error:
        result = str(error)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([call, result, peak]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for kind in BOMBS:
        bomb(folder, kind)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * URLS, pa.int32()), pa.array(["x" * (8 << 20)]))
    urls = pa.table({"url": [f"http://x/{n}" for n in range(URLS)], "width": [9] * URLS, "height": [9] * URLS})
    pq.write_table(urls.append_column("text", repeated), folder / "urls.parquet", store_schema=False)
    image = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array([picture() + bytes(8 << 20)]))
    turns = [[{"from": "human", "value": "<image>\nx"}, {"from": "gpt", "value": "y"}]] * 400
    shard = pa.table({"id": range(400), "detailed_caption": ["y"] * 400, "conversations": turns})
    shard = shard.append_column("image", pa.StructArray.from_arrays([image], names=["bytes"]))
    pq.write_table(shard, folder / "shard-00000.parquet", store_schema=False)
    return folder


@pytest.fixture(scope="module")
def measured(bombs: Path) -> dict[str, tuple[Any, float]]:
    """What each reader says of a bomb, and how much memory that took it, MB; each in a process of its own."""
    calls = [f"rows(parquet='{bombs}/{kind}.parquet')" for kind in BOMBS]
    calls += [f"images('{bombs}/{kind}.parquet')" for kind in ("dictionary", "struct", "delta")]
    calls += [f"rows(urls='{bombs}/urls.parquet')", f"columns('{bombs}', 'caption.parquet')", f"shards('{bombs}')"]
    command = [sys.executable, "-c", HARNESS]
    said = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, timeout=200, check=False)
    assert said.returncode == 0, said.stderr
    results = [json.loads(line) for line in said.stdout.splitlines()]
    return {call.replace(f"{bombs}/", ""): (result, peak) for call, result, peak in results}


LARGE = len(picture()) + (8 << 20)


Measured = dict[str, tuple[Any, float]]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["dictionary", "struct", "delta", "many row groups"])
def test_repeated_image_takes_little_memory_and_is_indexed(measured: Measured, kind: str) -> None:
    rows, peak = measured[f"rows(parquet='{kind}.parquet')"]
    assert rows == [[40, LARGE, "", None]] * 64
    assert peak < LIMIT


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["zstd page", "gzip page", "brotli page"])
def test_page_of_half_a_gigabyte_is_not_decompressed(measured: Measured, kind: str) -> None:
    rows, peak = measured[f"rows(parquet='{kind}.parquet')"]
    assert rows == [[None, None, "decompression bomb", None]] * 64
    assert peak < LIMIT


@pytest.mark.parametrize("kind", ["caption", "path"])
def test_repeated_text_takes_little_memory_and_is_left_out(measured: Measured, kind: str) -> None:
    rows, peak = measured[f"rows(parquet='{kind}.parquet')"]
    assert rows == [[40, len(picture()), "", None]] * 64
    assert peak < LIMIT


def test_repeated_text_of_urls_is_left_out_in_little_memory(measured: Measured) -> None:
    rows, peak = measured["rows(urls='urls.parquet')"]
    assert rows == [[9, None, "", None]] * URLS
    assert peak < LIMIT


@pytest.mark.parametrize("kind", ["dictionary", "struct", "delta"])
def test_repeated_images_are_read_a_few_at_a_time(measured: Measured, kind: str) -> None:
    lengths, peak = measured[f"images('{kind}.parquet')"]
    assert lengths == [LARGE] * 64
    assert peak < LIMIT + 600, "the images themselves, and what one read takes"


def test_columns_of_the_pool_have_a_limit(measured: Measured, bombs: Path) -> None:
    said, peak = measured[f"columns('{bombs}', 'caption.parquet')"]
    assert said == "caption.parquet: decompression bomb: 64 rows of more than 268,435,456 bytes"
    assert peak < LIMIT


def test_training_shards_have_a_limit(measured: Measured, bombs: Path) -> None:
    said, peak = measured[f"shards('{bombs}')"]
    bomb_ = "decompression bomb: row group 0 takes more than 1,073,741,824 bytes"
    assert said == f"test: {bombs}/shard-00000.parquet: {bomb_}"
    assert peak < 2 * LIMIT + 400


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


def test_index_command_reports_a_bomb_in_parquet(
    tmp_path: Path, bombs: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for kind in ("zstd page", "dictionary"):
        shutil.copy(bombs / f"{kind}.parquet", tmp_path)
    result = vl3syn("index", "--parquet", tmp_path, "--run", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    rows = open_run(tmp_path / "run").index.scan().sort("shard", "offset").collect().to_dicts()
    assert [row["width"] for row in rows] == [40] * 64 + [None] * 64
    assert {row["error"].partition(":")[0] for row in rows[64:]} == {"decompression bomb"}


# Pages that repeat nothing, and are small all the same

PAGES = ("plain", "delta length", "list", "plain shard")


def one_page_per_value(folder: Path, kind: str) -> None:
    """Values of 40 MiB of zeros, each in a page of its own: each page is allowed, all are 800 MiB or more."""
    zeros = pa.array([bytes(40 << 20)]).take(pa.array([0] * 20))
    columns: dict[str, Any] = {"image": zeros, "n": range(20)}
    how: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1, "data_page_size": 1}
    if kind == "delta length":
        how |= {"column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}, "data_page_version": "2.0"}
    elif kind == "list":
        lists = pa.ListArray.from_arrays(pa.array(range(21), pa.int32()), zeros.cast(pa.string()))
        columns = {"image": [picture()] * 20, "caption": lists}
    elif kind == "plain shard":
        turns = [[{"from": "human", "value": "<image>\nx"}, {"from": "gpt", "value": "y"}]] * 30
        image = pa.StructArray.from_arrays([zeros.take(pa.array([0] * 30))], names=["bytes"])
        columns = {"id": range(30), "detailed_caption": ["y"] * 30, "conversations": turns, "image": image}
    name = "shard-00000" if kind == "plain shard" else kind
    (folder / kind).mkdir()
    pq.write_table(pa.table(columns), folder / kind / f"{name}.parquet", write_statistics=False, **how)


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """As `measured`, of files with a page per value, of wide columns of nulls and of many long captions."""
    folder = tmp_path_factory.mktemp("paged")
    for kind in PAGES:
        one_page_per_value(folder, kind)
    captions = pa.array(["a" * 900_000]).take(pa.array([0] * 800))
    urls = pa.table({"url": [f"http://x/{n}" for n in range(800)], "n": range(800), "caption": captions})
    how: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1}
    pq.write_table(urls, folder / "captions.parquet", write_statistics=False, **how)
    wide = pa.table({"n": pa.array([b"\1" * 1_000_000, None] * 300, pa.binary(1_000_000))})
    pq.write_table(wide, folder / "wide.parquet", compression="zstd", write_statistics=False)
    calls = [f"rows(parquet='{folder}/{kind}/{kind}.parquet')" for kind in ("plain", "delta length", "list")]
    calls += [f"images('{folder}/plain/plain.parquet')", f"rows(urls='{folder}/captions.parquet')"]
    calls += [f"columns('{folder}', '{name}.parquet')" for name in ("captions", "wide")]
    calls += [f"shards('{folder}/plain shard')"]
    command = [sys.executable, "-c", LIMITED + HARNESS]
    said = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, timeout=200, check=False)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    return {call.replace(str(folder), ""): (result, peak) for call, result, peak in lines}


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["plain", "delta length"])
def test_pages_of_one_value_are_read_a_few_at_a_time(paged: Measured, kind: str) -> None:
    rows, peak = paged[f"rows(parquet='/{kind}/{kind}.parquet')"]
    assert rows == [[None, 40 << 20, "not an image", None]] * 20
    assert peak < LIMIT


@pytest.mark.thorough
def test_lists_of_long_texts_are_not_read(paged: Measured) -> None:
    rows, peak = paged["rows(parquet='/list/list.parquet')"]
    assert rows == [[None, None, "decompression bomb", None]] * 20
    assert peak < LIMIT


def test_urls_with_long_captions_end_at_the_limit_of_text(paged: Measured) -> None:
    rows, peak = paged["rows(urls='/captions.parquet')"]
    assert rows[-1][2] == "broken Parquet"
    assert {len(row[3]) for row in rows[:-1]} == {900_000}
    assert peak < 2 * LIMIT, "256 MiB of text, and the same as Python's"


@pytest.mark.parametrize("name", ["captions", "wide"])
def test_columns_of_long_values_are_read_a_few_at_a_time(paged: Measured, name: str) -> None:
    rows, peak = paged[f"columns('', '{name}.parquet')"]
    assert rows == 64
    assert peak < LIMIT


def test_shard_of_large_pages_has_a_limit(paged: Measured) -> None:
    said, peak = paged["shards('/plain shard')"]
    assert said.endswith("decompression bomb: row group 0 takes more than 1,073,741,824 bytes")
    assert peak < 2 * LIMIT + 400


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
