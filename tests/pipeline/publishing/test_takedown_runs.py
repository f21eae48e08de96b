"""What was removed from a publication is in no later publication of its run, and the card says so."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from core.errors import UserError
from manifests import Run, open_run
from manifests.removals import Removals, Takedown, add_takedown, takedowns_in
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish as write_shards
from pipeline.publishing.removal_requests import parse_requests
from pipeline.publishing.takedown import Orders, TakenDown, removals_at, take_down
from pipeline.recipe_file import Publish
from tests.conftest import jpeg
from tests.pipeline.publishing.test_publish import captioned, files, publish

pytestmark = pytest.mark.usefixtures("here")
MakeImages = Callable[..., Path]
Vl3syn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Path:
    """A run of 24 images and its publication, `run` and `out`."""
    folder = tmp_path_factory.mktemp("takedown")
    (folder / "pool").mkdir()
    for number in range(24):
        (folder / f"pool/{number:06d}.jpg").write_bytes(jpeg(20 + number, 24, number))
    publish(captioned(folder / "pool", folder / "run"), folder / "out", rows_per_shard=8)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; the pool stays where it is."""
    for name in ("run", "out"):
        shutil.copytree(prepared / name, tmp_path / name)
    return tmp_path


def remove(out: Path, *lines: str, run: Run | None = None) -> TakenDown:
    return take_down(Orders(parse_requests(lines, "list"), "list"), Folder.at(out), str(out), run)


def keys_in(out: Path) -> list[str]:
    return sorted(pq.read_table(out / "data")["source_key"].to_pylist())


def ids_by_key(run: Path) -> dict[str, int]:
    return dict(open_run(str(run)).index.scan(["key", "id"]).collect().iter_rows())


def republish(folder: Path, out: str = "out") -> int:
    return publish(open_run(str(folder / "run")), folder / out, rows_per_shard=8).rows


def test_removed_images_stay_away_when_the_pool_grows(tmp_path: Path, make_images: MakeImages) -> None:
    pool = make_images(tmp_path / "pool", 12)
    publish(captioned(pool, tmp_path / "run"), tmp_path / "out")
    before = keys_in(tmp_path / "out")
    remove(tmp_path / "out", before[0], before[1])
    make_images(pool, 14, start=12)
    shutil.copy(pool / before[0], pool / "again.jpg")  # the same image under another id
    done = publish(captioned(pool, tmp_path / "run"), tmp_path / "out")
    after = keys_in(tmp_path / "out")
    assert after == sorted(after)
    assert not {before[0], before[1], "again.jpg"} & set(after)
    assert {*before[2:], "000020.jpg"} <= set(after)
    assert done.rows == len(after)
    assert publish(open_run(str(tmp_path / "run")), tmp_path / "out").written == 0


def test_card_and_counts_follow_a_takedown(folder: Path) -> None:
    out = folder / "out"
    rows, keys = republish(folder), keys_in(out)
    text = (out / "README.md").read_text()
    remove(out, keys[3], keys[4])
    updated = (out / "README.md").read_text()
    assert updated.count("## Removed on request") == 1
    assert f"{rows - 2:,} images with captions, chosen out of 24" in updated
    assert f"| {takedowns_in(Folder.at(out / '.publication'))[0].date} | 2 | 2 |" in updated
    assert keys[3] not in updated
    fronts = [yaml.safe_load(each.split("---\n")[1]) for each in (text, updated)]
    assert fronts[0]["dataset_info"] != fronts[1]["dataset_info"]  # `datasets` caches by it
    assert {**fronts[0], "dataset_info": 0} == {**fronts[1], "dataset_info": 0}
    assert republish(folder) == rows - 2
    again = files(out)
    body = updated.partition("\n# ")[2]
    assert (out / "README.md").read_text().partition("\n# ")[2] == body
    assert republish(folder) == rows - 2
    assert files(out) == again


def test_url_keeps_out_an_image_that_waits_for_its_shard(tmp_path: Path) -> None:
    """Its shard was lost, or not written before a kill: so the URL names no published image."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number in range(12):
            url = json.dumps({"url": f"https://images.example/{number}.jpg"}).encode()
            for name, data in ((f"{number:03d}.jpg", jpeg(20 + number, 24, number)), (f"{number:03d}.json", url)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    run = captioned(tmp_path / "0.tar", tmp_path / "run", kind="tars")
    assert publish(run, tmp_path / "out", rows_per_shard=4).rows == 12
    shard = sorted((tmp_path / "out/data").iterdir())[1]
    lost = pq.read_table(shard).to_pylist()[0]
    shard.unlink()
    orders = Orders(parse_requests([lost["url"]], "list"), "list", missing_ok=True)
    assert take_down(orders, Folder.at(tmp_path / "out"), "out").unknown == (lost["url"],)
    done = publish(run, tmp_path / "out", rows_per_shard=4)
    keys = keys_in(tmp_path / "out")
    assert (done.rows, len(keys), lost["source_key"] in keys) == (11, 11, False)
    assert publish(run, tmp_path / "out", rows_per_shard=4).written == 0


def test_run_publishes_nowhere_what_it_has_removed(folder: Path) -> None:
    run, keys = open_run(str(folder / "run")), keys_in(folder / "out")
    shutil.copytree(folder / "out", folder / "older")
    remove(folder / "out", keys[0], run=run)
    assert remove(folder / "out", keys[0], run=run) == TakenDown(str(folder / "out"), before=(keys[0],))
    assert republish(folder, "fresh") == len(keys) - 1
    assert keys_in(folder / "fresh") == keys[1:]
    assert republish(folder, "older") == len(keys) - 1  # it was published before
    assert keys_in(folder / "older") == keys[1:]


def test_run_without_a_publication_keeps_the_list(folder: Path) -> None:
    run, keys = open_run(str(folder / "run")), keys_in(folder / "out")
    done = remove(folder / "none", keys[0], run=run)
    assert (done.images, done.kept_out, done.generation) == (0, 1, None)
    assert not (folder / "none").exists()
    republish(folder, "fresh")
    assert keys_in(folder / "fresh") == keys[1:]


def test_folder_that_the_user_names_must_be_a_publication(folder: Path, vl3syn: Vl3syn) -> None:
    (folder / "list").write_text(keys_in(folder / "out")[0])
    command = ("publish", "--run", folder / "run", "--remove", folder / "list")
    done = vl3syn(*command, "--out", folder / "oot")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{folder / 'oot'}: nothing is published there" in done.stderr
    assert not (folder / "run/removed").exists()
    assert vl3syn(*command).returncode == 0  # nothing is published at RUN/shards
    assert (folder / "run/removed").exists()


def test_list_of_another_publication_is_taken_over(folder: Path) -> None:
    opened, keys = open_run(str(folder / "run")), keys_in(folder / "out")
    remove(folder / "out", keys[0])
    settings, fresh = Publish(rows_per_shard=8), folder / "fresh"
    removals = removals_at(str(folder / "out"))
    done = write_shards(opened, recipe_of(opened), settings, Folder.at(fresh), str(fresh), removals)
    assert (done.rows, keys_in(fresh)) == (len(keys) - 1, keys[1:])
    assert republish(folder, "fresh") == len(keys) - 1  # without naming the list again


def test_publish_finishes_a_takedown_that_was_cut_off(folder: Path) -> None:
    keys, ids = keys_in(folder / "out"), ids_by_key(folder / "run")
    shutil.copytree(folder / "out", folder / "other")
    remove(folder / "other", keys[0])
    (log,) = takedowns_in(Folder.at(folder / "other/.publication"))
    add_takedown(Folder.at(folder / "out/.publication"), replace(log, finished=False))
    assert ids[keys[0]] in log.removals.ids
    republish(folder)
    assert keys_in(folder / "out") == keys[1:]
    assert json.loads((folder / "out/.publication/removed-000001.json").read_text())["finished"] is True


def test_deleted_shard_is_written_as_the_takedown_wrote_it(folder: Path) -> None:
    remove(folder / "out", keys_in(folder / "out")[0])
    republish(folder)
    before = files(folder / "out")
    shard = next(Path(folder / "out" / name) for name in takedowns_in(Folder.at(folder / "out/.publication"))[0].shards)
    shard.unlink()
    republish(folder)
    assert files(folder / "out") == before


def test_run_whose_images_are_all_removed_is_told(folder: Path) -> None:
    everything = Removals(ids=frozenset(ids_by_key(folder / "run").values()))
    add_takedown(Folder.at(folder / "run/removed"), Takedown(everything, finished=True))
    with pytest.raises(UserError, match=r"nothing to publish: all \d+ images were removed on request"):
        republish(folder, "fresh")
