"""The folder of downloaded images: what is deleted after a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.schemas import table_schema
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.stages.download.stage import Download
from pipeline.stages.download.storage import TarStore, sweeping


def test_error_of_a_job_is_raised_if_its_table_is_damaged(tmp_path: Path) -> None:
    table = Table(Folder.at(str(tmp_path / "table")), table_schema(Download().writes))
    images = Folder.at(str(tmp_path / "images"))
    with pytest.raises(RuntimeError, match="the job's"), sweeping(images, table):
        _fail(images, table, tmp_path)


def _fail(images: Folder, table: Table, folder: Path) -> None:
    (folder / "tar").write_bytes(b"tar")
    TarStore(images, table.folder).store(folder / "tar")
    table.append(table.schema.empty_table(), table.next_writer(), {})
    (part,) = (folder / "table").glob("part-*")
    part.write_bytes(part.read_bytes()[:100])
    raise RuntimeError("the job's error")
