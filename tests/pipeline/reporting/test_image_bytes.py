"""Images of a run are read where they lie; one that cannot be read has a reason, and none is an exception."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from manifests import Run
from pipeline.reporting.image_bytes import read_images
from pipeline.stages.download.storage import images_folder
from tests.conftest import jpeg
from tests.stored_facts import ids_of, store_run

IMAGES = {f"{number}.jpg": jpeg(20 + 90 * number, 20, number) for number in range(5)}


def folder_pool(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    return {"images": str(folder)}


def tar_pool(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    write_tar(folder / "a.tar", IMAGES)
    return {"tars": f"{folder}/*.tar"}


def parquet_pool(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    pq.write_table(pa.table({"image": list(IMAGES.values())}), folder / "a.parquet", row_group_size=2)
    return {"parquet": f"{folder}/*.parquet"}


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def read(run: Run) -> dict[str, bytes | str]:
    """The bytes or the reason of each image, by key."""
    keys = {id_: key for key, id_ in ids_of(run).items()}
    ids = pl.DataFrame({"id": list(keys)})
    return {keys[image.id]: image.error if image.data is None else image.data for image in read_images(run, ids)}


def stored(url: Path, pool: dict[str, Any]) -> Run:
    return store_run(url, {"name": "t", "pool": pool, "stages": []}, {})


@pytest.mark.parametrize("make", [folder_pool, tar_pool, parquet_pool])
def test_bytes_are_those_of_the_pool(tmp_path: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    run = stored(tmp_path / "run", make(tmp_path / "pool"))
    images = read(run)
    assert set(images.values()) == set(IMAGES.values())
    half = pl.DataFrame({"id": sorted(ids_of(run).values())[1::2]})
    assert {image.id: image.data for image in read_images(run, half)} == {
        id_: images[key] for key, id_ in ids_of(run).items() if id_ in half["id"]
    }


@pytest.mark.parametrize("make", [folder_pool, tar_pool, parquet_pool])
def test_pool_that_has_gone_is_a_reason_of_each_image(tmp_path: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    run = stored(tmp_path / "run", make(tmp_path / "pool"))
    shutil.rmtree(tmp_path / "pool")
    reasons = read(run)
    assert len(reasons) == 5
    assert all(isinstance(reason, str) and "No such file" in reason for reason in reasons.values())


def test_files_that_are_gone_changed_linked_or_broken(tmp_path: Path) -> None:
    pool = folder_pool(tmp_path / "pool")
    (tmp_path / "pool" / "broken.jpg").write_bytes(b"no image")
    run = stored(tmp_path / "run", pool)
    (tmp_path / "secret").write_bytes(IMAGES["2.jpg"])
    (tmp_path / "pool" / "0.jpg").unlink()
    (tmp_path / "pool" / "1.jpg").write_bytes(IMAGES["1.jpg"] + b"0")
    (tmp_path / "pool" / "2.jpg").unlink()
    (tmp_path / "pool" / "2.jpg").symlink_to(tmp_path / "secret")
    images = read(run)
    assert "No such file" in str(images["0.jpg"])
    assert str(images["1.jpg"]).startswith("changed: it has ")
    assert "link" in str(images["2.jpg"])
    assert images["3.jpg"] == IMAGES["3.jpg"]
    assert str(images["broken.jpg"]).startswith("not an image")


def test_image_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", folder_pool(tmp_path / "pool"))
    ids = pl.DataFrame({"id": list(ids_of(run).values())})
    shortest = min(map(len, IMAGES.values()))
    sizes = [None if image.data is None else len(image.data) for image in read_images(run, ids, longest=shortest)]
    assert set(sizes) <= {None, shortest}
    assert None in sizes


def url_pool(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "list.csv").write_text("url\nhttp://h.example/a.jpg\nhttp://h.example/b.jpg\n")
    return {"urls": f"{folder}/list.csv"}


def test_pool_of_urls_has_no_bytes_yet(tmp_path: Path) -> None:
    assert set(read(stored(tmp_path / "run", url_pool(tmp_path / "pool"))).values()) == {
        "the pool has only the URL of this image"
    }


def test_downloaded_images_are_read_from_their_tars(tmp_path: Path) -> None:
    recipe = {"name": "t", "pool": url_pool(tmp_path / "pool"), "stages": [{"stage": "download"}]}
    run = store_run(tmp_path / "run", recipe, {})
    assert set(read(run).values()) == {"not downloaded yet"}
    first, second = sorted(ids_of(run), key=str)
    data = IMAGES["4.jpg"]
    columns = {"image_shard": "a.tar", "image_offset": 512, "image_bytes": len(data)}
    run = store_run(tmp_path / "other", recipe, {"download": {first: columns, second: "HTTP 404: not found"}})
    folder = Path(images_folder("", run.folder).path)
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(folder / "a.tar", {"x.jpg": data})
    assert read(run) == {first: data, second: "HTTP 404: not found"}
    (folder / "a.tar").unlink()
    assert "has none of the 1 tars" in str(read(run)[first])


def test_code_that_a_run_names_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stored(tmp_path / "run", folder_pool(tmp_path / "pool"))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    stages = [{"stage": "evil", "class": "evil:Stage", "table": "evil-0"}]
    stages += [{"stage": "download", "class": "evil:Download", "table": "evil-1"}]
    assert read(replace(run, recipe={**run.recipe, "stages": stages})) == IMAGES
    reasons = read(replace(run, recipe={**run.recipe, "pool": {"kind": "evil:Pool", "where": "x"}}))
    assert "the pool is of the class evil:Pool, whose code is not run" in str(reasons["0.jpg"])
    assert not (tmp_path / "canary").exists()


def test_unknown_id_is_refused(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", folder_pool(tmp_path / "pool"))
    with pytest.raises(UserError, match="has no image with the id 17"):
        list(read_images(run, pl.DataFrame({"id": [17]})))


def test_download_that_is_not_valid_is_a_reason(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", folder_pool(tmp_path / "pool"))
    stages = [{"stage": "download", "images": 5, "table": "download-0"}]
    reasons = set(read(replace(run, recipe={**run.recipe, "stages": stages})).values())
    assert reasons == {"download: images: Input should be a valid string"}
