"""Shards: whole, without duplicates, the same however they came to be, and open to every reader."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from captioners.prompts import read_prompts
from core.errors import UserError
from manifests import Run
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import Published, add_to_lists
from pipeline.publishing.publish import publish as write_shards
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.kills import end, kill, wait_for_end_of
from tests.runs import run_here

pytestmark = pytest.mark.usefixtures("engine")
here = pytest.mark.usefixtures("here")  # most are about the shards; those without it have Ray write them
MakeImages = Callable[..., Path]
PYTHON = [sys.executable, "-m", "pipeline"]


def captioned(pool: Path, url: Path, *more: str, kind: str = "images", **settings: Any) -> Run:
    """A run over `pool` with short captions and more stages."""
    with chat_server() as server:
        engine = {"kind": "server", "url": server.url}
        stages: list[dict[str, Any]] = [
            {"stage": "aspect_ratio", "keep": {"max": 2.0}},
            {"stage": "short_caption", "model": "m", "engine": engine, **settings},
        ]
        for name in more:
            stages.append({"stage": name, **({"model": "m", "engine": engine} if "caption" in name else {})})
        opened, _ = run_here({"name": "t", "pool": {kind: str(pool)}, "stages": stages}, url)
    return opened


def publish(opened: Run, out: Path | str, **how: Any) -> Published:
    settings = Publish.model_validate({"rows_per_shard": 20, **how})
    return write_shards(opened, recipe_of(opened), settings, Folder.at(out), str(out))


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory, engine: None) -> Run:
    """A run of 53 images, 50 of which are kept, with both captions."""
    folder = tmp_path_factory.mktemp("fifty")
    pool = folder / "pool"
    pool.mkdir()
    for number in range(50):
        Image.effect_noise((40 + number, 50), 60).convert("RGB").save(
            pool / f"{number:03d}.{('jpg', 'png')[number % 2]}"
        )
    for number in range(3):
        Image.new("RGB", (200, 10 + number)).save(pool / f"wide{number}.png")
    return captioned(pool, folder / "run", "detailed_caption", "hashes")


def files(out: Path) -> dict[str, str]:
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in out.rglob("*") if f.is_file()}


def pool_of(opened: Run) -> Path:
    return Path(opened.recipe["pool"]["images"])


def test_shard_has_image_bytes_captions_and_conversations(fifty: Run, tmp_path: Path) -> None:
    done = publish(fifty, tmp_path / "out")
    assert (done.rows, done.shards, done.written, dict(done.left_out), done.stale) == (50, 3, 3, {}, 0)
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    kept = fifty.manifest().filter(pl.col("status") == "kept").collect()
    assert sorted(row["id"] for row in rows) == sorted(kept["id"])
    sources = dict(kept.select("id", "key").iter_rows())
    for row in rows:
        data = (pool_of(fifty) / sources[row["id"]]).read_bytes()
        assert row["image"]["bytes"] == data
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        ending = "png" if data.startswith(b"\x89PNG") else "jpg"
        assert row["image"]["path"] == f"{row['id']}.{ending}"
        for use, turns in (("detailed", row["conversations"]), ("short", row["short_conversations"])):
            human, gpt = turns
            assert (human["from"], gpt["from"]) == ("human", "gpt")
            mark, _, question = human["value"].partition("\n")
            assert mark == "<image>"
            assert question in read_prompts(use)
            assert gpt["value"] == row[f"{use}_caption"]
            # The server's caption names the prompt that it was asked: the question is the one that was answered.
            assert gpt["value"].endswith(f"as told by {hashlib.sha256(question.encode()).hexdigest()[:8]}.")
    assert [row["id"] for row in rows] != sorted(sources)
    assert {"aspect_ratio", "phash", "short_words"} <= rows[0].keys()


@here
def test_shards_are_read_by_every_common_reader(fifty: Run, tmp_path: Path) -> None:
    import datasets
    import duckdb
    import pandas as pd

    publish(fifty, tmp_path / "out")
    glob = f"{tmp_path}/out/data/*.parquet"
    sizes = {i: (w, h) for i, w, h in fifty.index.scan().select("id", "width", "height").collect().iter_rows()}
    loaded = datasets.load_dataset("parquet", data_files=glob, split="train", cache_dir=str(tmp_path / "cache"))
    assert {row["id"]: row["image"].size for row in loaded} == {row["id"]: sizes[row["id"]] for row in loaded}
    by_card = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache2"))
    assert len(by_card) == len(loaded) == 50
    assert pl.scan_parquet(glob).select(pl.len()).collect().item() == 50
    assert duckdb.sql(f"select count(distinct id), min(conversations[1].\"from\") from '{glob}'").fetchall() == [
        (50, "human")
    ]
    frame = pd.read_parquet(tmp_path / "out" / "data")
    assert Image.open(io.BytesIO(frame["image"][0]["bytes"])).size == sizes[frame["id"][0]]


@here
def test_subsets_are_published_as_parquet_and_webdataset(fifty: Run, tmp_path: Path) -> None:
    import webdataset

    publish(fifty, tmp_path / "p", subsets=("short", "detailed"))
    for use in ("short", "detailed"):
        table = pq.read_table(tmp_path / "p" / use)
        assert table.num_rows == 50
        assert [turns[1]["value"] for turns in table["conversations"].to_pylist()] == table["caption"].to_pylist()
    publish(fifty, tmp_path / "w", subsets=("short",), format="webdataset")
    shards = sorted(str(f) for f in (tmp_path / "w" / "short").glob("*.tar"))
    rows = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(rows) == 50
    facts = fifty.facts("short_caption").collect()
    captions = dict(facts.select("id", "short_caption").iter_rows())
    assert {row["json"]["id"]: row["json"]["caption"] for row in rows} == captions
    assert all(("jpg" in row) != ("png" in row) and row["json"]["sha256"] for row in rows)


@here
def test_publishing_again_changes_nothing(fifty: Run, tmp_path: Path) -> None:
    publish(fifty, tmp_path / "out")
    before = files(tmp_path / "out")
    done = publish(fifty, tmp_path / "out")
    assert (done.written, done.rows, done.job) == (0, 50, None)
    assert files(tmp_path / "out") == before
    publish(fifty, tmp_path / "elsewhere")
    assert files(tmp_path / "elsewhere") == before


@here
def test_other_seed_orders_the_same_images_differently(fifty: Run, tmp_path: Path) -> None:
    orders = []
    for seed in (0, 1):
        publish(fifty, tmp_path / str(seed), seed=seed)
        orders.append(pq.read_table(tmp_path / str(seed) / "data")["id"].to_pylist())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@here
def test_grown_pool_only_adds_shards(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 25)
    publish(captioned(pool, tmp_path / "run"), tmp_path / "out")
    before = files(tmp_path / "out")
    make_images(pool, 30, start=25)
    opened = captioned(pool, tmp_path / "run")
    done = publish(opened, tmp_path / "out")
    after = files(tmp_path / "out")
    same = [name for name in before if name not in ("README.md", "croissant.json", ".publication/sha256.json")]
    assert [after[name] for name in same] == [before[name] for name in same]
    assert done.written > 0
    ids = pq.read_table(tmp_path / "out" / "data")["id"].to_pylist()
    assert sorted(ids) == sorted(opened.manifest().filter(pl.col("status") == "kept").collect()["id"])


@here
def test_replaced_image_is_left_out_and_named(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 30)
    opened = captioned(pool, tmp_path / "run", "hashes")
    kept = opened.manifest().filter(pl.col("status") == "kept").collect()
    changed, cut = kept.row(0, named=True), kept.row(1, named=True)
    (pool / changed["key"]).write_bytes((pool / cut["key"]).read_bytes())
    (pool / cut["key"]).write_bytes(b"")
    done = publish(opened, tmp_path / "out")
    assert set(done.left_out) == {str(changed["id"]), str(cut["id"])}
    assert all(reason.startswith("changed") for reason in done.left_out.values())
    published = pq.read_table(tmp_path / "out" / "data")["id"].to_pylist()
    assert len(published) == done.rows == kept.height - 2
    assert publish(opened, tmp_path / "out").left_out == done.left_out  # told by the next one too


@here
@pytest.mark.parametrize("name", ["001", "every other"])
def test_deleted_image_is_left_out(tmp_path: Path, make_images: MakeImages, name: str) -> None:
    pool = make_images(tmp_path / "pool", 12)
    opened = captioned(pool, tmp_path / "run")
    kept = opened.manifest().filter(pl.col("status") == "kept").collect().sort("key")
    gone = kept[:1] if name == "001" else kept[::2]
    for key in gone["key"]:
        (pool / key).unlink()
    done = publish(opened, tmp_path / "out")
    assert dict(done.left_out) == {
        str(id_): "missing: the pool has deleted the image since it was indexed" for id_ in gone["id"]
    }
    published = pq.read_table(tmp_path / "out" / "data")["id"].to_pylist()
    assert sorted([*published, *gone["id"]]) == sorted(kept["id"])
    again = publish(opened, tmp_path / "out")
    assert (again.written, again.left_out) == (0, done.left_out)


@here
def test_shard_without_images_is_opened_by_datasets(tmp_path: Path, make_images: MakeImages) -> None:
    """The first shard lacks all of its images: the list of the publication has them, and no row group is empty."""
    import datasets

    pool = make_images(tmp_path / "pool", 12)
    opened = captioned(pool, tmp_path / "run")
    publish(opened, tmp_path / "first", rows_per_shard=4)
    keys = dict(opened.index.scan().select("id", "key").collect().iter_rows())
    shards = sorted((tmp_path / "first" / "data").iterdir())
    gone = pq.read_table(shards[0])["id"].to_pylist()
    for id_ in gone:
        (pool / keys[id_]).unlink()
    done = publish(opened, tmp_path / "out", rows_per_shard=4)
    assert set(done.left_out) == {str(id_) for id_ in gone}
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["id"]) == sorted(id_ for shard in shards[1:] for id_ in pq.read_table(shard)["id"].to_pylist())
    assert publish(opened, tmp_path / "out", rows_per_shard=4).written == 0


@here
@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_datasets_loads_the_latest_publication(tmp_path: Path, make_images: MakeImages, format_: str) -> None:
    """`datasets` caches a folder by its name and the card's front matter."""
    import datasets

    def loaded(opened: Run, out: Path) -> list[int]:
        publish(opened, out, format=format_)
        rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
        return sorted(rows["id"] if format_ == "parquet" else (row["id"] for row in rows["json"]))

    def kept(opened: Run) -> list[int]:
        return sorted(opened.manifest().filter(pl.col("status") == "kept").collect()["id"])

    pool = make_images(tmp_path / "pool", 12)
    run_, other = tmp_path / "run", tmp_path / "other"
    first = captioned(pool, run_)
    before = loaded(first, run_ / "shards")
    assert before == kept(first)
    make_images(tmp_path / "more", 6).rename(pool / "more")
    grown = captioned(pool, run_)
    assert loaded(grown, run_ / "shards") == kept(grown)
    assert len(kept(grown)) > len(before)
    another = captioned(make_images(tmp_path / "another", 18, start=40), other)
    assert loaded(another, other / "shards") == kept(another)
    assert not set(kept(another)) & set(kept(grown))


@pytest.mark.parametrize("mounted", [False, True])
def test_unreadable_image_ends_publish_until_it_is_readable(
    tmp_path: Path, make_images: MakeImages, mounted: bool
) -> None:
    pool = make_images(tmp_path / "pool", 30)
    opened = captioned(pool, tmp_path / "run")
    pool.rename(tmp_path / "away")
    if mounted:
        pool.mkdir()
    with pytest.raises(ValueError, match=r"publish: an image is unreadable.*run again to go on"):
        publish(opened, tmp_path / "out")
    (tmp_path / "away").rename(pool)
    assert publish(opened, tmp_path / "out").left_out == {}


@here
def test_setting_missing_in_an_earlier_version_has_its_default(fifty: Run, tmp_path: Path) -> None:
    publish(fifty, tmp_path / "out")
    settings = tmp_path / "out/.publication/settings.json"
    written = json.loads(settings.read_text())
    del written["seed"]
    settings.write_text(json.dumps(written))
    assert publish(fifty, tmp_path / "out").written == 0
    with pytest.raises(ValueError, match="was published with seed 0, not 1"):
        publish(fifty, tmp_path / "out", seed=1)


@here
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rows_per_shard": 10}, "was published with rows_per_shard 20, not 10"),
        ({"seed": 3}, "was published with seed 0, not 3"),
        ({"format": "webdataset"}, "was published with format parquet, not webdataset"),
        ({"subsets": ("short",)}, r"was published with subsets \['data'\], not \['short'\]"),
    ],
)
def test_publication_with_other_settings_is_refused(
    how: dict[str, Any], message: str, fifty: Run, tmp_path: Path
) -> None:
    publish(fifty, tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        publish(fifty, tmp_path / "out", **how)


@here
def test_publication_with_other_captions_is_refused(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 8)
    publish(captioned(pool, tmp_path / "run"), tmp_path / "out")
    opened = captioned(pool, tmp_path / "run", prompts=["What else?"])
    with pytest.raises(ValueError, match="has shards of another recipe, whose short_caption computed something else"):
        publish(opened, tmp_path / "out")


@here
def test_stricter_rules_report_published_images_no_longer_kept(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 30)
    opened = captioned(pool, tmp_path / "run")
    everything = publish(opened, tmp_path / "out").rows
    strict = captioned(pool, tmp_path / "run", keep={"min_short_words": 99})
    done = publish(strict, tmp_path / "out")
    assert (done.stale, done.rows) == (everything, everything)


@here
def test_two_runs_share_a_folder_but_not_their_shards(tmp_path: Path, make_images: MakeImages) -> None:
    first, second = (
        captioned(make_images(tmp_path / n, 3, start=s), tmp_path / f"run-{n}") for n, s in (("a", 0), ("b", 9))
    )
    assert publish(first, tmp_path / "out").rows == 3
    assert publish(second, tmp_path / "out").rows == 6
    shards = sorted((tmp_path / "out" / "data").iterdir())
    before = shards[0].read_bytes()
    shards[0].unlink()
    with pytest.raises(UserError, match="lacks shards with 3 images that this run does not have: finish the public"):
        publish(second, tmp_path / "out")
    assert publish(first, tmp_path / "out").rows == 6
    assert shards[0].read_bytes() == before


@here
def test_run_without_captions_is_refused(tmp_path: Path, make_images: MakeImages) -> None:
    pool = {"images": str(make_images(tmp_path / "pool", 3))}
    opened, _ = run_here({"name": "t", "pool": pool, "stages": [{"stage": "aspect_ratio"}]}, tmp_path / "run")
    with pytest.raises(ValueError, match="nothing to publish: the run has no short and no detailed captions"):
        publish(opened, tmp_path / "out")


def test_publish_writes_to_an_object_store(fifty: Run, bucket: str) -> None:
    done = publish(fifty, f"{bucket}/published")
    assert done.rows == 50
    folder = Folder.at(f"{bucket}/published/data")
    assert len(folder.files()) == 3
    read = [pq.read_table(f.path, columns=["id"], filesystem=folder.filesystem) for f in folder.files()]
    assert len({id_ for table in read for id_ in table["id"].to_pylist()}) == 50


@here
def test_card_describes_the_dataset(fifty: Run, tmp_path: Path) -> None:
    publish(fifty, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    front_matter = yaml.safe_load(front)
    assert front_matter["configs"] == [
        {"config_name": "data", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    assert front_matter["size_categories"] == ["n<1K"]
    assert "50 images with captions, chosen out of 53" in body
    assert "| aspect_ratio | 53 | 50 | 3 aspect_ratio > 2 |" in body
    assert "127.0.0.1" not in text  # where the server was is nobody's business
    assert str(tmp_path) not in text


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_resumed_publication_equals_an_uninterrupted_one(fifty: Run, tmp_path: Path, victim: str) -> None:
    kill_and_resume(fifty, tmp_path, [victim])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_publish_killed_ten_times_ends_with_the_same_files(fifty: Run, tmp_path: Path) -> None:
    kill_and_resume(fifty, tmp_path, ["driver", "raylet", "worker", "raylet", "driver"] * 2)


def kill_and_resume(opened: Run, tmp_path: Path, victims: Sequence[str]) -> None:
    publish(opened, tmp_path / "whole", rows_per_shard=1)
    out = tmp_path / "out"
    command = [*PYTHON, "publish", "--run", opened.url, "--out", str(out), "--rows-per-shard", "1", "--json"]
    kills = len(victims)
    dice = random.Random(kills)
    shards_before = 0
    for victim in victims:
        mark = f"VL3SYN_TEST={uuid.uuid4().hex}"
        name, _, value = mark.partition("=")
        environment = {**os.environ, name: value}
        if victim == "raylet":
            environment["RAY_ADDRESS"] = "local"  # so few images are written without Ray, unless it is asked for
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while driver.poll() is None and len(list(out.glob("data/*.parquet"))) < shards_before + 50 // (kills + 2):
                time.sleep(0.002)
            time.sleep(dice.random() * 0.01)
            kill(victim, driver.pid, mark)
            wait_for_end_of(mark)
        finally:
            end(mark)
        shards = list(out.glob("data/*.parquet"))
        for shard in shards:
            assert pq.read_table(shard).num_rows == 1
        print(f"killed with {len(shards)} of 50 shards there")
        shards_before = len(shards)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 50
    digests = {name: digest for name, digest in files(out).items() if ".aside-" not in name}
    assert digests == files(tmp_path / "whole")


@here
def test_concurrent_publications_share_one_assignment(
    fifty: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have decided what goes where before either has written it down."""
    both, write = threading.Barrier(2), Folder.create_file

    def at_once(folder: Folder, name: str, data: bytes) -> bool:
        if not folder.exists(name):
            both.wait(20)
        return write(folder, name, data)

    monkeypatch.setattr(Folder, "create_file", at_once)
    out = tmp_path / "out"
    with ThreadPoolExecutor() as threads:  # of two numbers of images per shard, so that the lists are not the same
        sizes = (20, 15)
        kept = fifty.verdict().alive
        lists = [threads.submit(add_to_lists, kept, Publish(rows_per_shard=size), Folder.at(out)) for size in sizes]
        first, second = (task.result() for task in lists)
    assert first.equals(second)
    assert len(list((out / ".publication").glob("*.parquet"))) == 1
    assert len(set(first["id"])) == first.height == 50


@here
def test_damaged_or_missing_list_is_named(fifty: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(fifty, out)
    path = out / ".publication" / "000001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(ValueError, match=f"{path}: the file is damaged .*; copy it back, or publish elsewhere"):
        publish(fifty, out)
    path.rename(path.with_name("000002.parquet"))
    with pytest.raises(ValueError, match=f"{path}: this list is missing"):
        publish(fifty, out)


@here
def test_shards_have_page_checksums(fifty: Run, tmp_path: Path) -> None:
    publish(fifty, tmp_path / "out")
    shard = next((tmp_path / "out" / "data").iterdir())
    data = bytearray(shard.read_bytes())
    chunk = pq.read_metadata(shard).row_group(0).column(1)
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(shard, page_checksum_verification=True)
