"""The folder of downloaded images: tars that appear whole or not at all, each with the images of one part."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident

import polars as pl
from pyarrow import fs as pafs

from core.errors import UserError
from manifests.process import is_gone, this_process
from manifests.storage import Folder
from manifests.tables import Table
from pipeline.stages.download.columns import DESCRIBED

IMAGES = "images"
"""Name of the folder in a run, unless the stage names another."""

_NOTE = ".storing-"
"""Prefix of the files in the stage's table that name the tar that a worker is storing. Their names end with its own."""

_QUIET_S = 3600.0
"""Seconds. A note from another machine that is older has no worker any more: by then it has stored tar and part."""


def images_folder(given: str | None, run: Folder) -> Folder:
    """Return the folder of the images: the one that the stage names, else that of the run."""
    return Folder.at(given) if given else run.join(IMAGES)


@dataclass(frozen=True)
class TarStore:
    """Stores tars for one worker. In each thread a part of the table names the last tar before the next begins.

    A note in the table's folder names the tar that is being stored. So `sweep` finds a tar whose worker died before it
    stored the part, and never looks at tars of others in the same folder.

    Attributes:
        folder: The folder of the images.
        table: The folder of the stage's table.
        note: Begin of the names of the worker's notes, one for each thread.
    """

    folder: Folder
    table: Folder
    note: str = field(default_factory=lambda: f"{_NOTE}{uuid.uuid4().hex}")

    def store(self, tar: Path) -> str:
        """Move a tar into the folder; return its name there."""
        name = f"{uuid.uuid4().hex}.tar"
        self.table.write(f"{self.note}.{get_ident()}-{this_process()}", name.encode())
        self.folder.take(tar, name)
        return name


def refuse_elsewhere(folder: Folder, table: Table) -> None:
    """Refuse a folder that has none of the tars that the table names: the setting was changed, or the folder moved.

    Raises:
        UserError: It has none.
    """
    shard = DESCRIBED["shard"]
    named = table.scan([shard]).select(pl.col(shard).unique()).collect(engine="streaming")[shard].drop_nulls()
    if len(named) and not any(folder.exists(name) for name in named):
        raise UserError(
            f"download: {folder.path} has none of the {len(named):,} tars that the run has stored: set `images` to the "
            "folder where they are, or move them there"
        )


@contextmanager
def sweeping(folder: Folder, table: Table) -> Iterator[None]:
    """Call `sweep` before and after a job, and when it has failed: it may have stored a tar, but not its part."""
    sweep(folder, table)
    try:
        yield
    except BaseException:
        with suppress(OSError, UserError):  # the job's error matters more, also where a part of the table is damaged
            sweep(folder, table)
        raise
    sweep(folder, table)


def sweep(folder: Folder, table: Table) -> int:
    """Delete tars that no part of the table names, because their workers died.

    Tars of workers that still run, such as those of another job, stay.

    Returns:
        The number of deleted tars.
    """
    # Before the table is read: a worker may store its part, then end.
    notes = [file.base_name for file in table.folder.files() if file.base_name.startswith(_NOTE) and _is_left(file)]
    if not notes:
        return 0
    shard = DESCRIBED["shard"]
    used = table.scan([shard]).select(pl.col(shard).unique()).collect(engine="streaming")[shard]
    begun = {note: table.folder.read(note).decode() for note in notes}
    left = set(begun.values()) - set(used.to_list())
    deleted = sum(folder.exists(name) for name in left)
    for name in left:
        folder.delete(name)
    for note in notes:
        table.folder.delete(note)
    folder.sweep_aside()
    return deleted


def _is_left(note: pafs.FileInfo) -> bool:
    """Return whether the worker of a note is gone."""
    _, _, worker = note.base_name.removeprefix(_NOTE).partition("-")
    gone = is_gone(worker)
    return time.time() - note.mtime_ns / 1e9 > _QUIET_S if gone is None else gone
