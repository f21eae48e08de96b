"""Folders that other threads change while they are read, and files that are moved into them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from manifests.storage import Folder


def test_folder_created_while_it_is_listed_has_no_files(tmp_path: Path) -> None:
    """Arrow lists, fails, and then looks whether the folder exists: by then it may. One in six did so."""
    for number in range(300):
        folder = tmp_path / str(number)
        creator = threading.Thread(target=os.makedirs, args=(folder,))
        creator.start()
        assert Folder.at(folder).files() == []
        creator.join()


def test_file_that_is_taken_is_moved_where_that_is_possible(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", Folder.at(tmp_path / "folder")
    file.write_bytes(b"content")
    before = file.stat().st_ino
    folder.take(file, "name")
    assert not file.exists()
    assert (tmp_path / "folder/name").stat().st_ino == before
    assert folder.read("name") == b"content"


@pytest.mark.parametrize("local", [True, False], ids=["another file system", "no local folder"])
def test_file_that_is_taken_from_elsewhere_is_copied(local: bool, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    folder = Folder.at(tmp_path / "folder") if local else Folder(pafs.LocalFileSystem(), str(tmp_path), False)
    file = elsewhere / f"vl3syn-test-{os.getpid()}"
    file.write_bytes(b"content")
    try:
        folder.take(file, "name")
    finally:
        file.unlink()
    assert folder.read("name") == b"content"
    assert [path.base_name for path in folder.files()] == ["name"]
