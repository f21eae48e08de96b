"""The medium of a clip of a real pool of films: what a record calls the film, and what it cannot name."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from core.errors import UserError
from manifests.storage import Folder
from pipeline.pools import pool_of
from pipeline.publishing.clips.media import ClipMedia, check_root
from tests.film_files import film

ROW = {"id": 1, "start": 0.5, "end": 1.5, "width": 96, "height": 64}


@pytest.mark.parametrize("name", ["a.mp4", "odd ünï #1%20/q'uo te.mkv", "..a/..b.mp4"])
@pytest.mark.parametrize("media", [None, "."], ids=["pool", "above"])
def test_record_refers_to_the_file_of_the_pool(tmp_path: Path, name: str, media: str | None) -> None:
    path = tmp_path / "films" / name
    path.parent.mkdir(parents=True)
    film(path)
    pool = pool_of(videos=str(tmp_path / "films"))
    root = check_root(pool.root(), media and str(tmp_path))
    medium = ClipMedia("reference", Folder.at(tmp_path / "out"), root).medium(
        ROW, pool.film(pool.root(), name, name, 0, path.stat().st_size), 0
    )
    assert (medium.start, medium.end, medium.duration, medium.is_cut) == (0.5, 1.5, 1.0, False)
    assert os.path.samefile(Path(root) / medium.path, path)


def test_film_in_a_tar_cannot_be_referenced(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(film(tmp_path / "a.mp4"), "a.mp4")
    pool = pool_of(videos=str(tmp_path))
    source = pool.film(pool.root(), "a.tar", "a.mp4", 512, (tmp_path / "a.mp4").stat().st_size)
    media = ClipMedia("reference", Folder.at(tmp_path / "out"), str(tmp_path))
    with pytest.raises(UserError, match="a tar or a store, which a record cannot name"):
        media.medium(ROW, source, 0)
