"""What later stages, publishing, other pools and `compact` see of downloaded images."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.stages import ImageFacts, ImageStage
from manifests import open_run
from manifests.schemas import column
from manifests.storage import Folder
from pipeline.execution.runner import recipe_of
from pipeline.publishing.publish import publish
from pipeline.recipe_file import Publish
from tests.chat_server import chat_server
from tests.e2e.test_download import images_in_tars
from tests.runs import jobs_here, run_here
from tests.web_server import image_of, serving

pytestmark = pytest.mark.usefixtures("engine")
Command = Callable[..., subprocess.CompletedProcess[str]]


class Reads(ImageStage):
    """A stage that reads images together with columns of the list."""

    name: ClassVar = "reads"
    reads: ClassVar = ("encoded", "pool.photographer", "alt_text", "width", "format", "sha256")
    writes: ClassVar = pa.schema([column("seen", pa.string(), "What the stage got")])

    def load(self) -> ImageFacts:
        return _Seen()


class _Seen(ImageFacts):
    def prepare(self, encoded: bytes, *others: Any) -> str:
        return json.dumps([hashlib.sha256(encoded).hexdigest(), *others])

    def __call__(self, inputs: Sequence[str]) -> pa.Table:
        return pa.table({"seen": inputs})


NUMBERS = range(24)
WRONG = 5  # of its size the list says something else


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, download_python: str, engine: str) -> Path:
    """A run of 24 images with captions, one of them a copy, of a list with sizes; and a URL that is gone."""
    folder = tmp_path_factory.mktemp("finished")
    with serving() as web, chat_server() as server:
        rows = []
        for number in NUMBERS:
            side = 40 + len(str(number)) + (number == WRONG)
            texts = f"Picture {number}", f"Photographer {number}"
            rows.append((web.url(f"image/{number}"), *texts, *(("", "") if number % 3 == 0 else (side, 30))))
        rows += [(web.url("image/1"), "A copy", "", "", ""), (web.url("404/1"), "Gone", "", 40, 30)]
        pq.write_table(_listed(rows), folder / "list.parquet")
        caption = {"model": "m", "engine": {"kind": "server", "url": server.url}}
        polite = {"allow": ["127.0.0.2"], "per_host": 64, "engine": {"python": download_python}}
        stages = [
            {"stage": "aspect_ratio", "keep": {"max": 2.5}},
            {"stage": "download", **polite, "keep": {"max_image_ratio": 1.39}, "resources": {"part_rows": 10}},
            {"stage": f"{__name__}:Reads"},
            {"stage": "hashes", "keep": {"per_group_content_hash": 1}},
            {"stage": "short_caption", **caption},
        ]
        run_here({"pool": {"urls": f"{folder}/list.parquet"}, "stages": stages}, folder / "run")
        assert sum(web.asked.values()) in (len(rows), len(rows) - 1)  # the copy may lie in the same part
    return folder / "run"


def _listed(rows: Sequence[Sequence[Any]]) -> pa.Table:
    names = ("url", "caption", "photographer", "width", "height")
    columns = [[value if value != "" else None for value in values] for values in zip(*rows, strict=True)]
    return pa.table(dict(zip(names, columns, strict=True)))


def test_later_stages_see_the_true_images_and_the_list(finished: Path) -> None:
    rows = open_run(str(finished)).manifest().collect()
    assert rows.height == len(NUMBERS) + 2
    for row in rows.filter(pl.col("seen").is_not_null()).iter_rows(named=True):
        name = row["url"].rpartition("/")[2]
        sha256 = hashlib.sha256(image_of(name)).hexdigest()
        photographer = None if row["alt_text"] == "A copy" else f"Photographer {name}"
        assert json.loads(row["seen"]) == [sha256, photographer, row["alt_text"], 30, "JPEG", sha256]
        assert (row["image_width"], row["image_height"]) == (30, 40 + len(name)), "as it is shown, EXIF turns it"
        assert row["width"] in (None, 40 + len(name) + (name == str(WRONG))), "the index has what the list says"
    assert rows["seen"].null_count() == 1 + 14, "the one that is gone, and those with a side of 42 pixels"
    assert rows.filter(pl.col("size_differs") == 1)["url"].str.split("/").list.last().to_list() == [str(WRONG)]
    assert rows.filter(pl.col("size_differs") == 0).height == 15
    assert rows.filter(pl.col("drop_reason").str.starts_with("image_ratio 1.4 > 1.39")).height == 14


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_published_rows_have_true_sizes_and_texts_of_the_list(form: str, finished: Path, tmp_path: Path) -> None:
    opened = open_run(str(finished))
    settings = Publish.model_validate({"format": form, "rows_per_shard": 6})
    with jobs_here():
        done = publish(opened, recipe_of(opened), settings, Folder.at(tmp_path), str(tmp_path))
    assert (done.rows, dict(done.left_out)) == (10, {})
    card = (tmp_path / "README.md").read_text()
    assert "HTTP 404" in card
    assert "127.0.0.2" not in card, "the addresses of one's own network"
    for row, data in _published(form, tmp_path):
        name = row["url"].rpartition("/")[2]
        assert data == image_of(name)
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (row["width"], row["height"], row["format"]) == (30, 40 + len(name), "JPEG")
        assert row["alt_text"] in (f"Picture {name}", "A copy")
        assert row["short_caption"]


def _published(form: str, out: Path) -> Iterable[tuple[dict[str, Any], bytes]]:
    if form == "parquet":
        return [(row, row["image"]["bytes"]) for row in pq.read_table(out / "data").to_pylist()]
    found: dict[str, dict[str, bytes]] = {}
    for tar in out.rglob("*.tar"):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, _, ending = member.name.partition(".")
                file = archive.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[ending] = file.read()
    return [(json.loads(sample["json"]), sample["jpg"]) for sample in found.values()]


def test_folder_of_images_is_a_pool_of_tars(finished: Path, tmp_path: Path) -> None:
    opened, jobs = run_here({"pool": {"tars": f"{finished}/images/*.tar"}, "stages": []}, tmp_path / "run")
    rows = opened.index.scan().collect()
    assert (jobs["index"].computed, jobs["index"].errors) == (images_in_tars(finished), 0)
    for url, width, height, length in rows.select("url", "width", "height", "bytes").iter_rows():
        name = url.rpartition("/")[2]
        assert (width, height, length) == (30, 40 + len(name), len(image_of(name)))


def test_compacted_run_finds_its_images(finished: Path, tmp_path: Path, vl3syn: Command) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    before = open_run(str(run)).manifest().sort("id").collect()
    assert vl3syn("compact", run).returncode == 0
    for file in (table := next(run.glob("stages/download-*"))).glob("part-*"):
        if not file.name.startswith("part-000000-"):
            file.unlink()  # as an hour later
    assert [file.name[:12] for file in table.glob("part-*")] == ["part-000000-"]
    opened = open_run(str(run))
    recipe = {**opened.recipe, "stages": [*opened.recipe["stages"], {"stage": "quality"}]}
    again, jobs = run_here(recipe, run)
    assert {name: job.computed for name, job in jobs.items() if job.computed} == {"quality": 10}
    assert jobs["quality"].errors == 0
    assert again.manifest().select(before.columns).sort("id").collect().equals(before)
