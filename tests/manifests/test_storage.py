"""Folders that other threads change while they are read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from manifests.storage import Folder


def test_folder_created_while_it_is_listed_has_no_files(tmp_path: Path) -> None:
    """Arrow lists, fails, and then looks whether the folder exists: by then it may. One in six did so."""
    for number in range(300):
        folder = tmp_path / str(number)
        creator = threading.Thread(target=os.makedirs, args=(folder,))
        creator.start()
        assert Folder.at(folder).files() == []
        creator.join()
