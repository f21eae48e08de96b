"""An image is captioned, scored and published only as long as its bytes are those that were first read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from manifests import open_run
from manifests.contents import contents_table
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.kills import end, kill, wait_for_end_of
from tests.runs import jobs_here, run

Vl3syn = Callable[..., CompletedProcess[str]]


def picture(number: int, side: int = 40) -> bytes:
    """BMP: of one length, whatever is on it."""
    data = io.BytesIO()
    Image.effect_noise((side, side), 10 + 10 * number).convert("RGB").save(data, "BMP")
    return data.getvalue()


def recipe(pool: dict[str, str], server: str, *more: dict[str, Any]) -> dict[str, Any]:
    caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server}}
    return {"name": "t", "pool": pool, "stages": [caption, *more]}


def contents(url: Path) -> dict[int, tuple[int, bytes]]:
    rows = contents_table(open_run(url).folder).scan().collect()
    assert rows["id"].is_unique().all()
    return {id_: (length, digest) for id_, length, digest in rows["id", "seen_bytes", "seen_sha256"].iter_rows()}


def keys(url: Path) -> dict[str, int]:
    return dict(open_run(url).manifest().select("key", "id").collect().iter_rows())


def left_out(url: Path, out: Path) -> set[str]:
    """Publish, in this process; the ids of the images that are left out."""
    opened = open_run(url)
    how = Publish.model_validate({})
    return set(publish(opened, recipe_of(opened), how, Folder.at(out), str(out)).left_out)


def published(out: Path) -> dict[str, bytes]:
    """The images in shards, by the key that they had in the pool."""
    rows = pq.read_table(out / "data", columns=["source_key", "image"]).to_pylist()
    return {row["source_key"]: row["image"]["bytes"] for row in rows}


@pytest.mark.usefixtures("here")
def test_publish_leaves_out_images_replaced_after_captioning(tmp_path: Path, vl3syn: Vl3syn) -> None:
    """By a link to a text file, by HTML, by another picture, by one of the same length."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(6):
        (pool / f"{number}.bmp").write_bytes(picture(number))
    with chat_server() as server:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe({"images": str(pool)}, server.url)))
        assert vl3syn("run", tmp_path / "recipe.yaml", "--run", tmp_path / "run").returncode == 0
    before = {f.name: f.read_bytes() for f in pool.iterdir()}
    (tmp_path / "secret.txt").write_text("a secret\n")
    (pool / "1.bmp").unlink()
    (pool / "1.bmp").symlink_to(tmp_path / "secret.txt")
    (pool / "2.bmp").write_text("<!doctype html><p>gone")
    (pool / "3.bmp").write_bytes(picture(7, side=50))
    (pool / "4.bmp").write_bytes(picture(8))
    assert len(picture(8)) == len(before["4.bmp"])
    done = vl3syn("publish", "--run", tmp_path / "run", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert published(tmp_path / "out") == {name: before[name] for name in ("0.bmp", "5.bmp")}
    ids = keys(tmp_path / "run")
    reasons = json.loads(done.stdout)["left_out"]
    assert reasons.keys() == {str(ids[f"{number}.bmp"]) for number in (1, 2, 3, 4)}
    assert reasons[str(ids["1.bmp"])].startswith("link: ")
    for number in (2, 3, 4):
        assert reasons[str(ids[f"{number}.bmp"])].startswith("changed: the pool has other bytes there")


def tar_of(path: Path, images: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def parquet_of(path: Path, images: dict[str, bytes]) -> None:
    cells = [{"bytes": data, "path": name} for name, data in images.items()]
    pq.write_table(pa.table({"image": cells}), path, compression="none", use_dictionary=False)


def files_of(path: Path, images: dict[str, bytes]) -> None:
    path.mkdir(exist_ok=True)
    for name, data in images.items():
        (path / name).write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "path", "write"),
    [("images", "pool", files_of), ("tars", "a.tar", tar_of), ("parquet", "a.parquet", parquet_of)],
)
@pytest.mark.usefixtures("here")
def test_replaced_image_is_an_error_by_length_or_digest(
    tmp_path: Path, kind: str, path: str, write: Callable[[Path, dict[str, bytes]], None]
) -> None:
    images = {f"{number}.bmp": picture(number) for number in range(4)}
    write(tmp_path / path, images)
    pool, url = {kind: str(tmp_path / path)}, tmp_path / "run"
    with chat_server() as server:
        run(recipe(pool, server.url), url)
        ids = keys(url)
        seen = {id_: (len(images[key]), hashlib.sha256(images[key]).digest()) for key, id_ in ids.items()}
        assert contents(url) == seen
        images["2.bmp"] = picture(9)
        write(tmp_path / path, images)
        opened, done = run(recipe(pool, server.url, {"stage": "hashes"}), url)
        assert done["hashes"].errors == 0  # of the same length: not noticed before it is published
        assert contents(url) == seen
    assert left_out(url, tmp_path / "out") == {str(ids["2.bmp"])}
    assert published(tmp_path / "out").keys() == {"0.bmp", "1.bmp", "3.bmp"}
    assert opened.index.scan().collect().height == 4


@pytest.mark.usefixtures("here")
def test_image_of_changed_length_is_an_error_until_restored(tmp_path: Path) -> None:
    images = {f"{number}.bmp": picture(number) for number in range(3)}
    files_of(tmp_path / "pool", images)
    url = tmp_path / "run"
    with chat_server() as server:
        stages = recipe({"images": str(tmp_path / "pool")}, server.url)
        run(stages, url)
        (tmp_path / "pool/1.bmp").write_bytes(picture(1, side=44))
        from pipeline.execution.runner import prepare, run_stages
        from pipeline.recipe import parse_recipe

        stages["stages"].append({"stage": "hashes"})
        checked = parse_recipe(stages, "test")
        done = list(run_stages(prepare(checked, str(url)), checked))
        assert [(job.stage, job.computed, job.errors) for job in done] == [("short_caption", 0, 0), ("hashes", 3, 1)]
        bad = open_run(url).facts("hashes").filter(pl.col("error").is_not_null()).collect()
        assert bad["id"].to_list() == [keys(url)["1.bmp"]]
        assert bad["error"].item().startswith("changed: the pool has 5,862 bytes there now, and had 4,854; index it")
        (tmp_path / "pool/1.bmp").write_bytes(images["1.bmp"])
        _, again = run(stages, url)
        assert (again["hashes"].computed, again["hashes"].errors) == (1, 0)


@pytest.mark.usefixtures("here")
def test_run_without_a_contents_table_fills_it(tmp_path: Path) -> None:
    images = {f"{number}.bmp": picture(number) for number in range(4)}
    files_of(tmp_path / "pool", images)
    url = tmp_path / "run"
    with chat_server() as server:
        run(recipe({"images": str(tmp_path / "pool")}, server.url), url)
    seen = contents(url)
    shutil.rmtree(url / "stages/contents")
    assert left_out(url, tmp_path / "out") == set()
    assert contents(url) == seen
    (tmp_path / "pool/0.bmp").write_bytes(picture(9))
    assert left_out(url, tmp_path / "other") == {str(keys(url)["0.bmp"])}
    assert published(tmp_path / "other").keys() == {"1.bmp", "2.bmp", "3.bmp"}


@pytest.mark.thorough
def test_contents_read_by_a_killed_worker_are_kept(tmp_path: Path, vl3syn: Vl3syn) -> None:
    """A caption is written down as soon as it is there, and before it what it is about."""

    def padded(number: int) -> bytes:  # PNG, which is sent as it is, all of one length
        data = io.BytesIO()
        Image.effect_noise((40, 40), 10 + 5 * number).convert("RGB").save(data, "PNG")
        return data.getvalue().ljust(1 << 14, b"\0")

    images = {f"{number:02d}.png": padded(number) for number in range(12)}
    files_of(tmp_path / "pool", images)
    url, mark = tmp_path / "run", f"KILL_{uuid.uuid4().hex}"
    with chat_server(delay=0.5) as server:
        settings = recipe({"images": str(tmp_path / "pool")}, server.url)
        settings["stages"][0]["engine"]["concurrency"] = 2
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "pipeline", "run", str(tmp_path / "recipe.yaml"), "--run", str(url)]
        environment = {**os.environ, "MARK": mark}
        first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while sum(server.answered.values()) < 4 and first.poll() is None:
                time.sleep(0.02)
            for victim in ("worker", "driver"):
                assert kill(victim, first.pid, mark) is not None
            first.wait()
            wait_for_end_of(mark)
        finally:
            end(mark)
        digests = {hashlib.sha256(data).hexdigest(): name for name, data in images.items()}
        captioned = sorted(digests[digest] for digest, _ in server.answered)
        assert 4 <= len(captioned) < 12
        (tmp_path / "pool" / captioned[0]).write_bytes(padded(40))
        server.delay = 0
        with jobs_here():
            assert vl3syn("run", tmp_path / "recipe.yaml", "--run", url).returncode == 0
    done = vl3syn("publish", "--run", url, "--out", tmp_path / "out", "--json")
    assert list(json.loads(done.stdout)["left_out"]) == [str(keys(url)[captioned[0]])], done.stderr
    assert published(tmp_path / "out") == {name: data for name, data in images.items() if name != captioned[0]}
