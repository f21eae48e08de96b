"""From a list of URLs to images: what is asked of servers, what is stored, and what later stages see."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import random
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from core.errors import UserError
from manifests import Run, open_run
from manifests.contents import contents_table
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe import parse_recipe
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.runs import jobs_here, run_here
from tests.web_server import WebServer, image_of

pytestmark = pytest.mark.usefixtures("engine")
Command = Callable[..., subprocess.CompletedProcess[str]]

PERMANENT = ("404", "403", "html", "broken", "noai", "loop")
TRANSIENT = ("429", "503", "reset", "short")


@pytest.fixture
def stage(download_python: str) -> Callable[..., dict[str, Any]]:
    """The stage `download` as a recipe has it, with what the tests' server needs."""

    def make(part_rows: int = 1000, **settings: Any) -> dict[str, Any]:
        polite = {"allow": ["127.0.0.2"], "min_pause": 0, "timeout": 3, "per_host": 64, "concurrency": 8}
        engine = {"python": download_python}
        return {"stage": "download", "engine": engine, **polite, "resources": {"part_rows": part_rows}, **settings}

    return make


def write_list(path: Path, rows: Iterable[Sequence[object]]) -> dict[str, str]:
    """Write rows (URL, caption, width, height) as a list; return the pool."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("url", "caption", "width", "height"), *rows])
    return {"urls": str(path)}


def images(web: WebServer, numbers: Iterable[int]) -> list[tuple[object, ...]]:
    return [(web.url(f"image/{number}"), f"Picture {number}", "", "") for number in numbers]


def stored_bytes(opened: Run) -> dict[str, bytes]:
    """The stored images by URL."""
    rows = opened.manifest().filter(pl.col("image_shard").is_not_null()).collect()
    found = {}
    for url, tar, start, length in rows.select("url", "image_shard", "image_offset", "image_bytes").iter_rows():
        data = Path(f"{opened.folder.path}/images/{tar}").read_bytes()
        found[url] = data[start : start + length]
    return found


def images_in_tars(run: Path) -> int:
    count = 0
    for tar in (run / "images").iterdir():
        with tarfile.open(tar) as archive:
            count += sum(name.endswith(".jpg") for name in archive.getnames())
    return count


def test_next_run_asks_only_for_what_may_come(
    web: WebServer, stage: Callable[..., Any], tmp_path: Path, vl3syn: Command
) -> None:
    faults = [(web.url(f"{kind}/{number}"), "", "", "") for kind in (*PERMANENT, *TRANSIENT) for number in (1, 2)]
    hidden = f"http://127.0.0.9:{web.port}/image/hidden"
    inside = web.url(f"to/http:%2F%2F127.0.0.9:{web.port}%2Fimage%2Finside")
    others = [(hidden, "", "", ""), (inside, "", "", ""), ("file:///etc/passwd", "", "", ""), ("", "", "", "")]
    pool = write_list(tmp_path / "list.csv", [*faults, *others, *images(web, range(30))])
    recipe, url = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump({"pool": pool, "stages": [stage(part_rows=20)]}))
    with jobs_here():
        first = vl3syn("run", recipe, "--run", url)
        assert first.returncode == 0, first.stderr
        once = dict(web.asked)
        web.mended = True
        second = vl3syn("run", recipe, "--run", url)
    assert "download: 30 images, 0.0 MB; " in first.stderr
    assert "HTTP 404 3.8%, " in first.stderr
    asked = {path: count - once.get(path, 0) for path, count in web.asked.items() if count > once.get(path, 0)}
    assert asked == {f"{kind}/{number}": 1 for kind in TRANSIENT for number in (1, 2)}
    assert "download: 8 images" in second.stderr
    assert web.connections["127.0.0.9"] == 0
    assert web.connections["127.0.0.2"] == sum(web.asked.values()) > 0
    opened = open_run(str(url))
    assert opened.manifest().collect().height == len(faults) + len(others) + 30
    names = [*range(30), *(f"{number}" for _ in TRANSIENT for number in (1, 2))]
    assert sorted(stored_bytes(opened).values()) == sorted(image_of(str(name)) for name in names)

    (account,) = json.loads(vl3syn("explain", url, hidden, "--json").stdout)
    assert (account["status"], account["drop_stage"]) == ("error", "download")
    assert account["drop_reason"].startswith("forbidden address: 127.0.0.9")
    before = dict(web.asked)
    with jobs_here():
        assert vl3syn("retry", url, "download", "--where", "error like 'HTTP 404%'").returncode == 0
        third = vl3syn("download", "--run", url)
    assert third.returncode == 0, third.stderr
    assert {path for path, count in web.asked.items() if count != before[path]} == {"404/1", "404/2"}


@pytest.mark.parametrize("ids", ["hashed", "given"])
def test_grown_list_with_other_parts_asks_for_new_urls_only(
    ids: str, web: WebServer, stage: Callable[..., Any], tmp_path: Path
) -> None:
    def pool(numbers: Sequence[int]) -> dict[str, Any]:
        table = {"id": numbers, "url": [web.url(f"image/{number}") for number in numbers]}
        pq.write_table(pa.table(table), tmp_path / "list.parquet")
        return {"urls": str(tmp_path / "list.parquet")} | ({"id": "id"} if ids == "given" else {})

    _, jobs = run_here({"pool": pool(range(60)), "stages": [stage(part_rows=20)]}, tmp_path / "run")
    assert jobs["download"].computed == 60
    assert web.asked == {f"image/{number}": 1 for number in range(60)}
    grown = random.Random(3).sample(range(80), 80)
    opened, jobs = run_here({"pool": pool(grown), "stages": [stage(part_rows=7)]}, tmp_path / "run")
    assert jobs["download"].computed == 20
    assert web.asked == {f"image/{number}": 1 for number in range(80)}
    assert stored_bytes(opened) == {web.url(f"image/{n}"): image_of(str(n)) for n in range(80)}


def test_url_of_several_rows_is_asked_once_per_part(web: WebServer, stage: Callable[..., Any], tmp_path: Path) -> None:
    pool = write_list(tmp_path / "list.csv", [(web.url("image/1"), f"Text {n}", "", "") for n in range(5)])
    opened, _ = run_here({"pool": pool, "stages": [stage()]}, tmp_path / "run")
    rows = opened.manifest().collect()
    assert web.asked == {"image/1": 1}
    assert images_in_tars(tmp_path / "run") == 1
    assert rows["image_sha256"].to_list() == [hashlib.sha256(image_of("1")).hexdigest()] * 5


def test_images_of_another_size_are_judged_anew(web: WebServer, stage: Callable[..., Any], tmp_path: Path) -> None:
    pool = write_list(tmp_path / "list.csv", images(web, range(3)))
    for longest in (None, 20):
        stages = [stage(longest=longest), {"stage": "hashes"}]
        run_here({"pool": pool, "stages": stages}, tmp_path / "run")
        rows = open_run(str(tmp_path / "run")).manifest().collect()
        assert rows["drop_reason"].to_list() == [None] * 3
        assert rows["image_height"].max() == (longest or 41)
        seen = contents_table(Folder.at(str(tmp_path / "run"))).scan().collect()["seen_sha256"]
        assert {digest.hex() for digest in seen} == set(rows["image_sha256"]), "publishing compares them"


def test_images_of_an_earlier_size_are_published(web: WebServer, stage: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing is read anew when a setting is set back, so the stored digests are those of the other images."""
    pool, run = write_list(tmp_path / "list.csv", images(web, range(3))), tmp_path / "run"
    with chat_server() as server:
        caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        for longest in (None, 20, None):
            run_here({"pool": pool, "stages": [stage(longest=longest), caption]}, run)
    opened = open_run(str(run))
    with jobs_here():
        done = publish(opened, recipe_of(opened), Publish(), Folder.at(tmp_path / "out"), "out")
    assert (done.rows, dict(done.left_out)) == (3, {})
    for row in pq.read_table(tmp_path / "out/data").to_pylist():
        assert row["image"]["bytes"] == image_of(row["url"].rpartition("/")[2])


def test_folder_without_the_stored_tars_is_refused(web: WebServer, stage: Callable[..., Any], tmp_path: Path) -> None:
    pool, run = write_list(tmp_path / "list.csv", images(web, range(3))), tmp_path / "run"
    run_here({"pool": pool, "stages": [stage()]}, run)
    elsewhere = stage(images=str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="elsewhere has none of the 1 tars that the run has stored: set `images`"):
        run_here({"pool": pool, "stages": [elsewhere, {"stage": "hashes"}]}, run)
    write_list(tmp_path / "list.csv", images(web, range(4)))
    with pytest.raises(UserError, match="has none of the 1 tars"):
        run_here({"pool": pool, "stages": [elsewhere]}, run)
    assert not (tmp_path / "elsewhere").exists()


def test_two_runs_share_a_folder_of_images(web: WebServer, stage: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("first", "second"):
        pool = write_list(tmp_path / f"{name}.csv", images(web, range(3)))
        run_here({"pool": pool, "stages": [stage(images=str(folder))]}, tmp_path / name)
    run_here({"pool": pool, "stages": [stage(images=str(folder))]}, tmp_path / "second")
    assert len(list(folder.iterdir())) == 2
    for name in ("first", "second"):
        opened = open_run(str(tmp_path / name))
        recipe = {**opened.recipe, "stages": [*opened.recipe["stages"], {"stage": "hashes"}]}
        _, jobs = run_here(recipe, tmp_path / name)
        assert (jobs["hashes"].computed, jobs["hashes"].errors) == (3, 0)


def test_images_and_run_on_s3(
    web: WebServer, stage: Callable[..., Any], tmp_path: Path, bucket: str, vl3syn: Command
) -> None:
    rows = [*images(web, range(6)), (web.url("404/1"), "", "", "")]
    write_list(tmp_path / "list.csv", rows)
    Folder.at(f"{bucket}/lists").write("list.csv", (tmp_path / "list.csv").read_bytes())
    recipe = {"pool": {"urls": f"{bucket}/lists/list.csv"}, "stages": [stage(part_rows=4), {"stage": "hashes"}]}
    opened, jobs = run_here(recipe, f"{bucket}/run/download")
    assert (jobs["download"].computed, jobs["download"].errors) == (7, 1)
    assert (jobs["hashes"].computed, jobs["hashes"].errors) == (6, 0)
    folder = Folder.at(f"{bucket}/run/download/images")
    assert len(folder.files()) == 2
    for url, tar, start, length in (
        opened.manifest()
        .filter(pl.col("image_shard").is_not_null())
        .select("url", "image_shard", "image_offset", "image_bytes")
        .collect()
        .iter_rows()
    ):
        assert folder.read(tar)[start : start + length] == image_of(url.rpartition("/")[2])
    _, jobs = run_here(recipe, f"{bucket}/run/download")
    assert not any(job.computed for job in jobs.values())


@pytest.mark.thorough
def test_full_disk_is_one_line_and_the_next_run_goes_on(
    web: WebServer, stage: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = {"pool": write_list(tmp_path / "list.csv", images(web, range(40))), "stages": [stage(part_rows=20)]}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 10, before[1]))
    try:
        with pytest.raises(UserError, match=r"File too large.*vl3syn-download-"):
            run_here(recipe, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    opened, _ = run_here(recipe, tmp_path / "run")
    assert len(stored_bytes(opened)) == images_in_tars(tmp_path / "run") == 40


@pytest.mark.thorough
def test_part_that_cannot_be_stored_leaves_no_tar(
    web: WebServer, stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Table.append

    def append(table: Table, *part: Any) -> None:
        if "/download-" not in table.folder.path:
            return store(table, *part)
        assert len(list((tmp_path / "run/images").iterdir())) == 1, "the tar comes before the part"
        raise OSError(errno.ENOSPC, "No space left on device")

    recipe = {"pool": write_list(tmp_path / "list.csv", images(web, range(3))), "stages": [stage()]}
    with monkeypatch.context() as disk:
        disk.setattr(Table, "append", append)
        with pytest.raises(UserError, match="No space left on device"):
            run_here(recipe, tmp_path / "run")
    assert list((tmp_path / "run/images").iterdir()) == []
    assert len(stored_bytes(run_here(recipe, tmp_path / "run")[0])) == images_in_tars(tmp_path / "run") == 3


def test_second_download_in_a_recipe_is_refused(stage: Callable[..., Any]) -> None:
    recipe = {"pool": {"urls": "list.csv"}, "stages": [stage(), stage() | {"as": "again"}]}
    with pytest.raises(ValueError, match="download writes image_shard, a column of the index or of an earlier stage"):
        parse_recipe(recipe, "r")
