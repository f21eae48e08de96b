"""Parquet files of few bytes that unpack to many: no reader of ours fills the memory with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import open_run
from tests.canary_files import picture

LIMIT = 500  # MB above what the process takes with its imports; 64 values of 8 MiB are 512 MiB as bytes alone
URLS = 1000  # 8 GiB of text


def bomb(folder: Path, kind: str) -> Path:
    """A small file of large values: a picture with 8 MiB of zeros behind it, or a text as long, in 64 rows."""
    file = folder / f"{kind}.parquet"
    if file.exists():
        return file
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
    pq.write_table(pa.table(columns), file, **{"compression": "zstd", **how})
    assert file.stat().st_size < 600_000
    return file


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


for call in map(json.loads, sys.stdin):
    if os.fork():
        if status := os.wait()[1]:
            print(json.dumps([f"died of {os.waitstatus_to_exitcode(status)}", 0]), flush=True)
        continue
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        result = eval(call)
    except ValueError as error:
        result = str(error)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([result, peak]), flush=True)
    os._exit(0)
"""


Measure = Callable[..., tuple[Any, float]]


@contextmanager
def _measuring(program: str) -> Iterator[Measure]:
    """`measure(call, *arguments)`: what a reader says, and how much memory that took it, MB; each in a process."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        asked, said = process.stdin, process.stdout

        def measure(call: str, *arguments: object) -> tuple[Any, float]:
            asked.write(json.dumps(call.format(*(repr(str(argument)) for argument in arguments))) + "\n")
            asked.flush()
            result, peak = json.loads(said.readline())
            return result, peak

        yield measure
        asked.close()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def measure() -> Iterator[Measure]:
    with _measuring(HARNESS) as measure:
        yield measure


LARGE = len(picture()) + (8 << 20)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["dictionary", "struct", "delta", "many row groups"])
def test_repeated_image_takes_little_memory_and_is_indexed(measure: Measure, tmp_path: Path, kind: str) -> None:
    rows, peak = measure("rows(parquet={})", bomb(tmp_path, kind))
    assert rows == [[40, LARGE, "", None]] * 64
    assert peak < LIMIT


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["zstd page", "gzip page", "brotli page"])
def test_page_of_half_a_gigabyte_is_not_decompressed(measure: Measure, tmp_path: Path, kind: str) -> None:
    rows, peak = measure("rows(parquet={})", bomb(tmp_path, kind))
    assert rows == [[None, None, "decompression bomb", None]] * 64
    assert peak < LIMIT


@pytest.mark.parametrize("kind", ["caption", "path"])
def test_repeated_text_takes_little_memory_and_is_left_out(measure: Measure, tmp_path: Path, kind: str) -> None:
    rows, peak = measure("rows(parquet={})", bomb(tmp_path, kind))
    assert rows == [[40, len(picture()), "", None]] * 64
    assert peak < LIMIT


def test_repeated_text_of_urls_is_left_out_in_little_memory(measure: Measure, tmp_path: Path) -> None:
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * URLS, pa.int32()), pa.array(["x" * (8 << 20)]))
    urls = pa.table({"url": [f"http://x/{n}" for n in range(URLS)], "width": [9] * URLS, "height": [9] * URLS})
    pq.write_table(urls.append_column("text", repeated), tmp_path / "urls.parquet", store_schema=False)
    rows, peak = measure("rows(urls={})", tmp_path / "urls.parquet")
    assert rows == [[9, None, "", None]] * URLS
    assert peak < LIMIT


@pytest.mark.parametrize("kind", ["dictionary", "struct", pytest.param("delta", marks=pytest.mark.thorough)])
def test_repeated_images_are_read_a_few_at_a_time(measure: Measure, tmp_path: Path, kind: str) -> None:
    lengths, peak = measure("images({})", bomb(tmp_path, kind))
    assert lengths == [LARGE] * 64
    assert peak < LIMIT + 600, "the images themselves, and what one read takes"


def test_columns_of_the_pool_have_a_limit(measure: Measure, tmp_path: Path) -> None:
    said, peak = measure("columns({}, {})", tmp_path, bomb(tmp_path, "caption").name)
    assert said == "caption.parquet: decompression bomb: 64 rows of more than 268,435,456 bytes"
    assert peak < LIMIT


def test_training_shards_have_a_limit(measure: Measure, tmp_path: Path) -> None:
    image = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array([picture() + bytes(8 << 20)]))
    turns = [[{"from": "human", "value": "<image>\nx"}, {"from": "gpt", "value": "y"}]] * 400
    shard = pa.table({"id": range(400), "detailed_caption": ["y"] * 400, "conversations": turns})
    shard = shard.append_column("image", pa.StructArray.from_arrays([image], names=["bytes"]))
    pq.write_table(shard, tmp_path / "shard-00000.parquet", store_schema=False)
    said, peak = measure("shards({})", tmp_path)
    bomb_ = "decompression bomb: row group 0 takes more than 1,073,741,824 bytes"
    assert said == f"test: {tmp_path}/shard-00000.parquet: {bomb_}"
    assert peak < 2 * LIMIT + 400


def test_index_command_reports_a_bomb_in_parquet(
    tmp_path: Path, vl3syn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for kind in ("zstd page", "dictionary"):
        bomb(tmp_path, kind)
    result = vl3syn("index", "--parquet", tmp_path, "--run", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    rows = open_run(tmp_path / "run").index.scan().sort("shard", "offset").collect().to_dicts()
    assert [row["width"] for row in rows] == [40] * 64 + [None] * 64
    assert {row["error"].partition(":")[0] for row in rows[64:]} == {"decompression bomb"}


# Pages that repeat nothing, and are small all the same

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"


@pytest.fixture(scope="module")
def measure_limited() -> Iterator[Measure]:
    """As `measure`, in processes that have 6 GiB of addresses."""
    with _measuring(LIMITED + HARNESS) as measure:
        yield measure


def one_page_per_value(folder: Path, kind: str) -> Path:
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
    file = folder / ("shard-00000.parquet" if kind == "plain shard" else "0.parquet")
    pq.write_table(pa.table(columns), file, write_statistics=False, **how)
    return file


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["plain", "delta length"])
def test_pages_of_one_value_are_read_a_few_at_a_time(measure_limited: Measure, tmp_path: Path, kind: str) -> None:
    rows, peak = measure_limited("rows(parquet={})", one_page_per_value(tmp_path, kind))
    assert rows == [[None, 40 << 20, "not an image", None]] * 20
    assert peak < LIMIT


@pytest.mark.thorough
def test_lists_of_long_texts_are_not_read(measure_limited: Measure, tmp_path: Path) -> None:
    rows, peak = measure_limited("rows(parquet={})", one_page_per_value(tmp_path, "list"))
    assert rows == [[None, None, "decompression bomb", None]] * 20
    assert peak < LIMIT


@pytest.fixture(scope="module")
def long_captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = pa.array(["a" * 900_000]).take(pa.array([0] * 800))
    urls = pa.table({"url": [f"http://x/{n}" for n in range(800)], "n": range(800), "caption": captions})
    how: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1}
    file = tmp_path_factory.mktemp("long") / "captions.parquet"
    pq.write_table(urls, file, write_statistics=False, **how)
    return file


@pytest.mark.thorough
def test_urls_with_long_captions_end_at_the_limit_of_text(measure_limited: Measure, long_captions: Path) -> None:
    rows, peak = measure_limited("rows(urls={})", long_captions)
    assert rows[-1][2] == "broken Parquet"
    assert {len(row[3]) for row in rows[:-1]} == {900_000}
    assert peak < 2 * LIMIT, "256 MiB of text, and the same as Python's"


@pytest.mark.thorough
def test_long_captions_are_read_a_few_at_a_time(measure_limited: Measure, long_captions: Path) -> None:
    rows, peak = measure_limited("columns({}, {})", long_captions.parent, long_captions.name)
    assert rows == 64
    assert peak < LIMIT


@pytest.mark.thorough
def test_column_of_wide_values_is_read_a_few_rows_at_a_time(measure_limited: Measure, tmp_path: Path) -> None:
    wide = pa.table({"n": pa.array([b"\1" * 1_000_000, None] * 300, pa.binary(1_000_000))})
    pq.write_table(wide, tmp_path / "wide.parquet", compression="zstd", write_statistics=False)
    rows, peak = measure_limited("columns({}, {})", tmp_path, "wide.parquet")
    assert rows == 64
    assert peak < LIMIT


@pytest.mark.thorough
def test_shard_of_large_pages_has_a_limit(measure_limited: Measure, tmp_path: Path) -> None:
    said, peak = measure_limited("shards({})", one_page_per_value(tmp_path, "plain shard").parent)
    assert said.endswith("decompression bomb: row group 0 takes more than 1,073,741,824 bytes")
    assert peak < 2 * LIMIT + 400
