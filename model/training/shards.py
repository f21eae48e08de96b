"""Samples out of published shards: an image, a question about it, its caption. Read by row group, where they lie."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import pyarrow as pa

from core.arrow_types import check_plain
from core.errors import BadSampleError, UserError
from core.parquet import Parquet
from manifests.shards import TOGETHER, USES, conversation_column
from manifests.storage import Folder
from model.training.conversations import from_turns
from model.training.kept import Kept
from model.training.samples import Sample

log = logging.getLogger("vl3syn.train")

_LARGEST = 1 << 30  # bytes of a row group in memory
_FOOTERS = 16  # read at a time: on an object store each is a request


@dataclass(frozen=True)
class _Group:
    file: str
    number: int
    rows: int
    column: str


class ShardSource:
    """A published dataset.

    Attributes:
        name: In a recipe.
        blocks: Rows of each row group, shard after shard.
    """

    def __init__(
        self, name: str, path: str, caption: Literal["short", "detailed"] = "detailed", blocks_in_memory: int = 8
    ) -> None:
        """Read the shards' footers. A shard without rows is passed over, with a warning.

        Args:
            name: For messages.
            path: The dataset, or one of its subsets: a folder or a URL.
            caption: Which one is learned.
            blocks_in_memory: Row groups that are kept.

        Raises:
            UserError: No shards there, a broken one, or none with this caption.
        """
        self.name = name
        self._folder, self._path, files = _shards(path.rstrip("/"), caption)
        with ThreadPoolExecutor(_FOOTERS) as readers:
            footers = list(readers.map(self._columns, files))
        self._groups: list[_Group] = []
        for file, footer in zip(files, footers, strict=True):
            if footer is None or not sum(footer[1]):
                log.warning("%s: %s/%s is empty and passed over", name, self._path, file)
                continue
            column = self._conversations(file, footer[0], caption)
            self._groups += [_Group(file, number, rows, column) for number, rows in enumerate(footer[1])]
        self.blocks = tuple(group.rows for group in self._groups)
        self._ends = list(accumulate(self.blocks))
        self._kept: Kept[pa.Table] = Kept(self._read, blocks_in_memory)
        if not self.blocks:
            raise UserError(f"{name}: {self._path}: no images in its shards: publish a run there")

    def sample(self, row: int) -> Sample:
        """The sample of that row.

        Raises:
            BadSampleError: It has no image or no caption, or what the file has there is damaged.
            OSError: The file cannot be reached.
        """
        number = bisect_right(self._ends, row)
        group = self._groups[number]
        place = row - (self._ends[number] - group.rows)
        table = self._kept(number)
        first = self._ends[number - group.number - 1] if number > group.number else 0
        name = f"{self.name}: {group.file} row {row - first}"
        try:
            id_, image, turns = (table[column][place].as_py() for column in ("id", "image", group.column))
        except UnicodeDecodeError as error:  # Parquet's readers do not look into texts
            raise BadSampleError(f"{name}: a text that is not UTF-8: publish it again") from error
        name = f"{name} (id {id_})"
        if not turns or not (image or {}).get("bytes"):
            raise BadSampleError(f"{name}: no {'image' if turns else 'caption'}")
        try:
            return Sample(name, from_turns(turns, images=[image["bytes"]]))
        except ValueError as error:
            raise BadSampleError(f"{name}: {error}") from error

    def _read(self, number: int) -> pa.Table:
        group = self._groups[number]
        with self._opened(group.file, f"row group {group.number} is damaged") as file:
            return Parquet(file).group(group.number, ["id", "image.bytes", group.column], _LARGEST)

    def _columns(self, file: str) -> tuple[pa.Schema, list[int]] | None:
        """The columns of a shard, and the rows of its row groups."""
        with self._opened(file, "no whole Parquet file") as opened:
            if not opened.size():
                return None
            parquet = Parquet(opened)
            return parquet.schema, parquet.row_groups

    @contextmanager
    def _opened(self, file: str, fault: str) -> Iterator[Any]:
        """A shard to read from; what is wrong with its contents becomes a UserError that says `fault`."""
        with self._folder.filesystem.open_input_file(f"{self._folder.path}/{file}") as opened:
            try:
                yield opened
            except BadSampleError as error:
                raise UserError(f"{self.name}: {self._path}/{file}: {error}") from error
            except (pa.ArrowException, OSError) as error:
                opened.read_at(8, 0)  # raises again if the store is gone, which is no fault of the file's
                told = " ".join(str(error).split())
                raise UserError(f"{self.name}: {self._path}/{file}: {fault}: copy it again ({told})") from error

    def _conversations(self, file: str, schema: pa.Schema, caption: str) -> str:
        """The column with the turns of this caption."""
        names = set(schema.names)
        there = [use for use in USES if f"{use}_caption" in names]
        if not there and "caption" in names and self._path.rpartition("/")[2] not in set(USES) - {caption}:
            there = [caption]  # the subset of one caption, told by its name
        column = conversation_column(caption, there) if caption in there else ""
        if not {"id", "image", column} <= names:
            raise UserError(f"{self.name}: {self._path}/{file}: no {caption} captions: caption the run, publish it")
        try:
            check_plain(schema, ["id", "image.bytes", column])
        except BadSampleError as error:
            raise UserError(f"{self.name}: {self._path}/{file}: {error}") from error
        return column


def _shards(path: str, caption: str) -> tuple[Folder, str, list[str]]:
    """Where the shards are, in the folder, or its subset with this caption, or the one with both; and their names."""
    top = Folder.at(path)
    for subset in ("", caption, TOGETHER):
        folder = top.join(subset) if subset else top
        names = sorted(folder.relative(info.path) for info in folder.files())
        if shards := [name for name in names if name.startswith("shard-") and name.endswith(".parquet")]:
            return folder, f"{path}/{subset}".rstrip("/"), shards
    raise UserError(
        f"{path}: no shards (shard-*.parquet), nor in {caption}/ or {TOGETHER}/: give what publish has written"
    )
