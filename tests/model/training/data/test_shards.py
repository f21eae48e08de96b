"""Samples out of published shards: the right image and caption per row, little in memory, and what can be wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioners.prompts import read_prompts
from core.errors import BadSampleError
from manifests import Run
from manifests.storage import Folder
from model.training.data.shards import ShardSource
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.model.training.shard_files import GROUP, SIZE, image, words, write
from tests.runs import run_here


def row_of(source: ShardSource, row: int) -> tuple[bytes, str, str]:
    """Image, question and answer of a row."""
    user, assistant = source.sample(row).conversation
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    part, question = user["content"]
    assert part["type"] == "image"
    return part["image"], question, assistant["content"]


def all_told(source: ShardSource) -> list[tuple[bytes, str, str]]:
    return [row_of(source, row) for row in range(sum(source.blocks))]


def expected(use: str, count: int) -> list[tuple[bytes, str, str]]:
    return [(image(n), f"Ask {use} {n}?", words(use, n)) for n in range(count)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 rows in three shards, with both captions in one subset."""
    return write(tmp_path_factory.mktemp("shards"), [[3, 1, 4], [5], [2, 2]])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, engine: None) -> tuple[Run, Path]:
    """A run of the pipeline, published with both captions together, and with each in a subset."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("published")
    (folder / "pool").mkdir()
    for number in range(12):
        Image.new("RGB", (30 + number, 40), (20 * number, 9, 9)).save(folder / "pool" / f"{number}.png")
    with chat_server() as server:
        caption = {"model": "m", "engine": {"kind": "server", "url": server.url}}
        stages = [{"stage": "short_caption", **caption}, {"stage": "detailed_caption", **caption}]
        recipe = {"name": "t", "pool": {"images": str(folder / "pool")}, "stages": stages}
        opened, _ = run_here(recipe, folder / "run")
    for name, subsets in (("together", ()), ("apart", ("short", "detailed"))):
        how = Publish.model_validate({"rows_per_shard": 5, "subsets": subsets})
        publish(opened, recipe_of(opened), how, Folder.at(folder / name), name)
    return opened, folder


@pytest.mark.parametrize("use", ["short", "detailed"])
@pytest.mark.parametrize("name", ["together", "apart", "together/data", "apart/{use}"])
def test_published_dataset_is_read_row_by_row(published: tuple[Run, Path], name: str, use: str) -> None:
    opened, folder = published
    source = ShardSource("captions", str(folder / name.format(use=use)), use)  # type: ignore[arg-type]
    facts = opened.facts(f"{use}_caption").select("id", f"{use}_caption")
    keys = opened.index.scan().select("id", "key").join(facts, on="id").collect()
    pool = {(folder / "pool" / key).read_bytes(): caption for _, key, caption in keys.iter_rows()}
    rows = all_told(source)
    assert source.blocks == (5, 5, 2)
    assert {data: caption for data, _, caption in rows} == pool
    assert {question for _, question, _ in rows} <= set(read_prompts(use))


@pytest.mark.parametrize("use", ["short", "detailed"])
def test_every_row_has_its_own_image_and_caption(dataset: Path, use: str) -> None:
    source = ShardSource("captions", str(dataset), use)  # type: ignore[arg-type]
    assert source.blocks == (3, 1, 4, 5, 2, 2)
    assert all_told(source) == expected(use, 17)


def test_sample_is_named_by_file_row_and_id(dataset: Path) -> None:
    source = ShardSource("captions", str(dataset))
    for row, (file, position) in {0: (0, 0), 3: (0, 3), 7: (0, 7), 8: (1, 0), 15: (2, 2), 16: (2, 3)}.items():
        name = source.sample(row).name
        assert name == f"captions: shard-{file:05d}.parquet row {position} (id {1000 + row})"
        stored = pq.read_table(dataset / f"data/shard-{file:05d}.parquet", columns=["id"])
        assert stored["id"][position].as_py() == 1000 + row


def test_subset_of_one_caption_is_read_from_either_folder(tmp_path: Path) -> None:
    write(tmp_path, [[4]], "short", ("short",))
    write(tmp_path, [[4]], "detailed", ("detailed",))
    for use in ("short", "detailed"):
        for folder in (tmp_path, tmp_path / use):
            assert all_told(ShardSource("captions", f"{folder}/", use)) == expected(use, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"short/shard-00000.parquet: no detailed captions: caption the run"):
        ShardSource("captions", str(tmp_path / "short"), "detailed")


def test_missing_caption_of_a_dataset_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[4]], uses=("short",))
    assert all_told(ShardSource("captions", str(tmp_path), "short")) == expected("short", 4)
    with pytest.raises(ValueError, match="no detailed captions") as error:
        ShardSource("captions", str(tmp_path), "detailed")
    assert "\n" not in str(error.value)


_READER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import pyarrow as pa
from model.training.data.shards import ShardSource

url, threads, order = sys.argv[1], int(sys.argv[2]), sys.argv[3]
source = ShardSource("captions", url, blocks_in_memory=3)
rows = np.arange(sum(source.blocks))
rows = np.random.default_rng(0).permutation(rows) if order == "shuffled" else rows
def right(row):
    user, assistant = source.sample(row).conversation
    return user["content"][0]["image"] == np.random.default_rng(row).bytes(SIZE) and str(row) in assistant["content"]
with ThreadPoolExecutor(threads) as readers:
    assert all(readers.map(right, rows.tolist()))
pool = pa.default_memory_pool()
print(pool.bytes_allocated(), pool.max_memory())
"""


def memory(url: Path | str, threads: int, order: str) -> tuple[int, int]:
    """Read all rows, three groups being kept, in a process of its own: what Arrow holds at the end, and the most."""
    script = _READER.replace("SIZE", str(SIZE))
    done = subprocess.run(
        [sys.executable, "-c", script, str(url), str(threads), order],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    held, most = map(int, done.stdout.split())
    return held, most


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of 5 MB: 240 images in 30 row groups."""
    return write(tmp_path_factory.mktemp("large"), [[8] * 30])


def test_threads_read_row_groups_and_keep_few_in_memory(large: Path) -> None:
    held, most = memory(large, 4, "shuffled")
    assert 2 * GROUP < held < 4 * GROUP
    assert most < 16 * GROUP  # those that four threads are reading too, twice while they are put together


def upload(folder: Path, bucket: str, prefix: str) -> str:
    client = boto3.client("s3")
    for file in folder.rglob("*.parquet"):
        client.put_object(
            Bucket=bucket.removeprefix("s3://"), Key=f"{prefix}/{file.relative_to(folder)}", Body=file.read_bytes()
        )
    return f"{bucket}/{prefix}"


def test_shards_in_a_bucket_equal_local_shards(dataset: Path, bucket: str) -> None:
    url = upload(dataset, bucket, "train/dataset")
    for folder in (url, f"{url}/", f"{url}/data"):
        source = ShardSource("captions", folder, "short")
        assert source.blocks == (3, 1, 4, 5, 2, 2)
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(lambda row, source=source: row_of(source, row), range(17))) == expected("short", 17)  # type: ignore[misc]
    with pytest.raises(ValueError, match="s3://vl3syn/train/nothing: no shards"):
        ShardSource("captions", f"{bucket}/train/nothing")


def test_file_in_a_bucket_is_not_read_as_a_whole(large: Path, bucket: str) -> None:
    held, most = memory(upload(large, bucket, "train/large"), 4, "in order")
    assert 2 * GROUP < held < 4 * GROUP
    assert most < 16 * GROUP


def test_empty_shard_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [[3], [], [2]])
    (tmp_path / "data/shard-00003.parquet").touch()
    with caplog.at_level(logging.WARNING):
        source = ShardSource("captions", str(tmp_path))
    assert all_told(source) == expected("detailed", 5)
    assert [record.getMessage().partition(" is empty")[0] for record in caplog.records] == [
        f"captions: {tmp_path}/data/shard-0000{number}.parquet" for number in (1, 3)
    ]


def test_dataset_of_empty_shards_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[], []])
    with pytest.raises(ValueError, match="no images in its shards: publish a run there"):
        ShardSource("captions", str(tmp_path))


def test_rows_without_image_or_caption_are_named(tmp_path: Path) -> None:
    cells = [{"bytes": image(n), "path": "a.jpg"} for n in range(6)]
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    asked_twice = [{"from": "human", "value": "<image>\nWhat is <image>?"}, turns[1]]
    write(
        tmp_path,
        [[3, 3]],
        image=[None, {"bytes": None, "path": "a.jpg"}, {"bytes": b"", "path": "a.jpg"}, *cells[3:]],
        conversations=[turns, turns, turns, None, asked_twice, turns],
    )
    source = ShardSource("captions", str(tmp_path))
    reasons = {0: "no image", 1: "no image", 2: "no image", 3: "no caption", 4: "more <image> marks than images"}
    for row, reason in reasons.items():
        with pytest.raises(ValueError, match=reason) as error:
            source.sample(row)
        assert str(error.value).startswith(f"captions: shard-00000.parquet row {row} (id {1000 + row}): ")
    assert row_of(source, 5)[0] == image(5)


def test_caption_that_is_not_utf_8_is_a_bad_sample(tmp_path: Path) -> None:
    """Half a character as other writers encode it: no reader of Parquet looks into texts."""
    file = write(tmp_path / "data", [[2]]) / "data/shard-00000.parquet"
    table = pq.read_table(file)
    values = pa.array([b"Ask?", b"a\xed\xa0\xbd", b"Ask?", b"Sound"]).view(pa.string())
    turns = pa.StructArray.from_arrays([pa.array(["human", "gpt"] * 2), values], ["from", "value"])
    column = table.schema.get_field_index("short_conversations")
    conversations = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), turns)
    pq.write_table(table.set_column(column, "short_conversations", conversations), file)
    source = ShardSource("captions", str(tmp_path / "data"), "short")
    with pytest.raises(BadSampleError, match=r"^captions: .*shard-00000.parquet row 0: a text that is not UTF-8"):
        source.sample(0)
    assert source.sample(1).conversation[1]["content"] == "Sound"


def test_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/shard-00000.tar").write_bytes(b"0" * 1024)
    for folder in ("nowhere", ".", "tars"):
        with pytest.raises(
            ValueError, match=r"no shards \(shard-\*.parquet\), nor in detailed/ or data/: give what publish"
        ):
            ShardSource("captions", str(tmp_path / folder))
    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"url": ["http://x/"]}), tmp_path / "other/shard-00000.parquet")
    with pytest.raises(ValueError, match=r"other/shard-00000.parquet: no detailed captions"):
        ShardSource("captions", str(tmp_path / "other"))


def test_truncated_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, [[2], [2, 2]])
    file = tmp_path / "data/shard-00001.parquet"
    whole = file.read_bytes()
    for rest in (3, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:rest])
        with pytest.raises(
            ValueError, match=r"data/shard-00001.parquet: no whole Parquet file: copy it again"
        ) as error:
            ShardSource("captions", str(tmp_path))
        assert "\n" not in str(error.value)


def test_damaged_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    write(tmp_path, [[2, 2, 2]])
    file = tmp_path / "data/shard-00000.parquet"
    data = bytearray(file.read_bytes())
    chunk = pq.read_metadata(file).row_group(1).column(1)  # the bytes of images
    data[chunk.data_page_offset : chunk.data_page_offset + 200] = bytes(200)
    file.write_bytes(data)
    source = ShardSource("captions", str(tmp_path))
    for row in (2, 3, 2):
        with pytest.raises(ValueError, match=r"shard-00000.parquet: row group 1 is damaged: copy it again") as error:
            source.sample(row)
        assert "\n" not in str(error.value)
    assert [row_of(source, row) for row in (0, 1, 4, 5)] == [expected("detailed", 6)[row] for row in (0, 1, 4, 5)]


def test_file_that_breaks_in_use_is_named_and_a_lost_one_ends(tmp_path: Path) -> None:
    write(tmp_path, [[2, 2]])
    file = tmp_path / "data/shard-00000.parquet"
    source = ShardSource("captions", str(tmp_path), blocks_in_memory=1)
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"shard-00000.parquet: row group 0 is damaged"):
        source.sample(0)
    file.unlink()
    with pytest.raises(FileNotFoundError):  # not a bad sample: the next one would be bad too
        source.sample(0)
    file.write_bytes(whole)
    assert row_of(source, 0) == expected("detailed", 1)[0]
