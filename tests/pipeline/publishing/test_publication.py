"""What is in a publication already is compared before it is published again: nothing is lost, nothing doubled."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from manifests import Run, open_run
from manifests.storage import Folder
from tests.pipeline.publishing.test_publish import captioned, fifty, files, pool_of, publish

pytestmark = pytest.mark.usefixtures("here")
Vl3syn = Callable[..., CompletedProcess[str]]
__all__ = ["fifty"]  # a fixture


def lines(error: str) -> list[str]:
    return [line for line in error.splitlines() if line]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, fifty: Run) -> Path:
    """A copy of the run, published into three shards; and a copy of both, `sound`."""
    copy = shutil.copytree(fifty.url, tmp_path_factory.mktemp("published") / "run")
    publish(open_run(copy), copy / "shards")
    shutil.copytree(copy, copy.with_name("sound"))
    return copy


@pytest.fixture
def small(published: Path) -> Iterator[Path]:
    """The published run, which a test may change: always in one place, for the card has a digest of its path."""
    yield published
    shutil.rmtree(published)
    shutil.copytree(published.with_name("sound"), published)


@pytest.mark.parametrize("folder", ["index", "stages/short_caption-*", "stages/hashes-*", "stages/contents"])
@pytest.mark.parametrize("name", ["{} (1).parquet", "{}-copy.parquet"])
def test_publish_does_not_write_the_rows_of_a_copied_part_twice(
    small: Path, tmp_path: Path, vl3syn: Vl3syn, folder: str, name: str
) -> None:
    part = next(small.glob(f"{folder}/part-*"))
    copy = part.with_name(name.format(part.stem))
    shutil.copy(part, copy)
    done = vl3syn("publish", "--run", small, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert lines(done.stderr) == [
        f"vl3syn: {copy}: no part has such a name; if it is a copy, move it away, if it was renamed, "
        "give it back its name"
    ]
    assert not (tmp_path / "out/data").exists()


def test_publication_copied_without_its_settings_is_refused(small: Path, tmp_path: Path, vl3syn: Vl3syn) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small / "shards", copy, ignore=shutil.ignore_patterns(".publication"))
    before = files(copy)
    done = vl3syn("publish", "--run", small, "--out", copy, "--rows-per-shard", 20)
    assert (done.returncode, done.stdout) == (1, "")
    assert lines(done.stderr)[0].startswith(
        f"vl3syn: {copy}/data/shard-00000.parquet is in no list of .publication: copy that folder too, or publish "
        "elsewhere, with --out"
    )
    assert len(lines(done.stderr)) == 1
    assert files(copy) == before
    shutil.copytree(small / "shards/.publication", copy / ".publication")
    assert publish(open_run(small), copy).written == 0


@pytest.mark.parametrize("how", [{}, {"format": "webdataset"}, {"subsets": ("short",)}])
def test_shards_without_lists_are_refused_in_every_format(small: Path, how: dict[str, Any]) -> None:
    shutil.rmtree(small / "shards/.publication")
    with pytest.raises(UserError, match=r"/data/shard-00000\.parquet is in no list of \.publication: copy that folder"):
        publish(open_run(small), small / "shards", **how)


@pytest.mark.parametrize("lost", ["000001.parquet", "settings.json"])
def test_lost_lists_or_settings_are_not_rewritten(small: Path, lost: str) -> None:
    (small / "shards/.publication" / lost).unlink()
    before = files(small / "shards")
    with pytest.raises(
        UserError, match=rf"shard-00000\.parquet is in no list|{lost}: this file is missing; copy it back"
    ):
        publish(open_run(small), small / "shards")
    assert files(small / "shards") == before


@pytest.mark.parametrize("name", ["shard-00000 (1).parquet", "shard-00007.parquet", "shard-00000.tar"])
def test_file_that_readers_would_take_for_a_shard_is_refused(small: Path, name: str) -> None:
    data = small / "shards/data"
    shutil.copy(data / "shard-00000.parquet", data / name)
    with pytest.raises(UserError, match=rf"^{re.escape(str(data / name))} is in no list of \.publication"):
        publish(open_run(small), small / "shards")


def test_list_under_another_number_is_refused(small: Path) -> None:
    lists = small / "shards/.publication"
    shutil.copy(lists / "000001.parquet", lists / "000002.parquet")
    with pytest.raises(UserError, match=rf"^{lists}/000002.parquet: a copy of 000001.parquet"):
        publish(open_run(small), small / "shards")


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("damage", ["empty", "half", "footer", "other", "fewer"])
def test_damaged_shard_is_named_and_rewritten_when_deleted(small: Path, number: int, damage: str) -> None:
    shard = small / f"shards/data/shard-{number:05d}.parquet"
    before, data = files(small / "shards"), shard.read_bytes()
    if damage == "fewer":
        pq.write_table(pq.read_table(shard).slice(0, 19), shard)
    else:
        other = shard.with_name(f"shard-{1 - number:05d}.parquet").read_bytes()
        flipped = data[:-9] + bytes([data[-9] ^ 255, data[-8] ^ 255]) + data[-7:]
        shard.write_bytes({"empty": b"", "half": data[: len(data) // 2], "footer": flipped, "other": other}[damage])
    message = rf"^{shard}: the shard is damaged \(.+\); delete it and publish again: it is written again$"
    with pytest.raises(UserError, match=message):
        publish(open_run(small), small / "shards")
    shard.unlink()
    assert publish(open_run(small), small / "shards").written == 1
    assert files(small / "shards") == before


@pytest.mark.parametrize("keep", [0, *(pytest.param(n, marks=pytest.mark.thorough) for n in (3000, 10240)), -512])
def test_truncated_tar_is_named(small: Path, tmp_path: Path, keep: int) -> None:
    out = tmp_path / "tars"
    publish(open_run(small), out, format="webdataset")
    shard = out / "data/shard-00001.tar"
    data = shard.read_bytes()
    assert publish(open_run(small), out, format="webdataset").written == 0
    shard.write_bytes(data[: keep or None] if keep > 0 else data.rstrip(b"\0")[:keep] if keep else b"")
    with pytest.raises(
        UserError, match=rf"^{shard}: the shard is damaged \(it is cut off\); delete it and publish again"
    ):
        publish(open_run(small), out, format="webdataset")


def test_damaged_shards_in_an_object_store_are_named(small: Path, bucket: str) -> None:
    out = Folder.at(f"{bucket}/damaged")
    publish(open_run(small), f"{bucket}/damaged")
    assert publish(open_run(small), f"{bucket}/damaged").written == 0
    out.join("data").write("shard-00001.parquet", out.join("data").read("shard-00001.parquet")[:3000])
    with pytest.raises(UserError, match=r"damaged/data/shard-00001.parquet: the shard is damaged"):
        publish(open_run(small), f"{bucket}/damaged")


def test_images_missing_in_a_deleted_shard_are_published_later(small: Path, tmp_path: Path) -> None:
    opened = open_run(small)
    source = pool_of(opened) / opened.manifest().filter(pl.col("status") == "kept").collect()["key"][0]
    data = source.read_bytes()
    try:
        source.write_bytes(b"another")
        done = publish(opened, tmp_path / "out")
        assert (done.rows, len(done.left_out)) == (49, 1)
    finally:
        source.write_bytes(data)
    for shard in (tmp_path / "out/data").iterdir():
        shard.unlink()
    done = publish(opened, tmp_path / "out")
    assert (done.rows, dict(done.left_out)) == (50, {})
    assert publish(opened, tmp_path / "out").rows == 50


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"tables": []}', "\ufeff{}", "whole[:-20]"])
def test_damaged_settings_are_named(small: Path, text: str) -> None:
    settings = small / "shards/.publication/settings.json"
    settings.write_text(settings.read_text()[:-20] if text == "whole[:-20]" else text)
    message = rf"^{settings}: the file is damaged \(.+\); copy it back, or publish elsewhere, with --out$"
    with pytest.raises(UserError, match=message):
        publish(open_run(small), small / "shards")


def test_damaged_list_of_left_out_images_is_named(small: Path) -> None:
    file = small / "shards/.publication/left-out-00001.json"
    file.write_text('{"1": "chan')
    with pytest.raises(
        UserError, match=rf"^{file}: the file is damaged \(.+\); delete it and the shards of that number"
    ):
        publish(open_run(small), small / "shards")


def test_caption_keeps_its_question_when_the_recipe_drops_it(small: Path, tmp_path: Path) -> None:
    recipe = small / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("Describe the image in one short", "Desdribe the image in one short"))
    assert recipe.read_text() != text
    assert publish(open_run(small), tmp_path / "ours").rows == 50  # the prompts are ours: nothing is lost
    read = [pq.read_table(folder / "data").to_pylist() for folder in (small / "shards", tmp_path / "ours")]
    assert read[0] == read[1]


def test_changed_prompts_of_the_user_are_refused(
    tmp_path: Path, make_images: Callable[..., Path], vl3syn: Vl3syn
) -> None:
    prompts = ["What is it?", "What else?"]
    captioned(make_images(tmp_path / "pool", 12), tmp_path / "run", prompts=prompts)
    recipe = tmp_path / "run/recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("What is it?", "Who is it?"))
    done = vl3syn("publish", "--run", tmp_path / "run", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(lines(done.stderr)) == 1, done.stderr
    assert "captions of short_caption answer a prompt with hash" in done.stderr
    assert "its prompts are not those of the recipe any more: put them back" in done.stderr
    assert not (tmp_path / "out/data").exists()
    recipe.write_text(text)
    assert vl3syn("publish", "--run", tmp_path / "run", "--out", tmp_path / "out").returncode == 0
    for row in pq.read_table(tmp_path / "out/data").to_pylist():
        question = row["conversations"][0]["value"].partition("\n")[2]
        assert question in prompts
        assert row["short_prompt"] == hashlib.sha256(question.encode()).hexdigest()[:8]
