"""Samples out of published shards: an image, a question about it, its caption. Read by row group, where they lie."""

from __future__ import annotations

import logging
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.shards import TOGETHER
from manifests.storage import Folder
from model.training.conversations import from_turns
from model.training.kept import Kept
from model.training.samples import Sample

log = logging.getLogger("vl3syn.train")

_FOOTERS = 16  # read at a time: on an object store each is a request


@dataclass(frozen=True)
class _Group:
    file: str
    number: int
    rows: int


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
            ValueError: No shards there, a broken one, or none with this caption.
        """
        self.name, self._path = name, path.rstrip("/")
        self._folder, files = _shards(self._path, caption)
        with ThreadPoolExecutor(_FOOTERS) as readers:
            footers = list(readers.map(self._footer, files))
        self._column = self._conversations(footers, caption)
        self._groups: list[_Group] = []
        for file, footer in zip(files, footers, strict=True):
            if footer is None or not footer.num_rows:
                log.warning("%s: %s/%s is empty and passed over", name, self._path, file)
                continue
            rows = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
            self._groups += [_Group(file, number, count) for number, count in enumerate(rows)]
        self.blocks = tuple(group.rows for group in self._groups)
        self._ends = list(accumulate(self.blocks))
        self._kept: Kept[pa.Table] = Kept(self._read, blocks_in_memory)
        if not self.blocks:
            raise ValueError(f"{name}: {self._path}: no images in its shards: publish a run there")

    def sample(self, row: int) -> Sample:
        """The sample of that row.

        Raises:
            ValueError: It has no image, or no caption.
            OSError: The file cannot be read.
        """
        number = bisect_right(self._ends, row)
        group = self._groups[number]
        place = row - (self._ends[number] - group.rows)
        table = self._kept(number)
        id_, image, turns = (table[column][place].as_py() for column in ("id", "image", self._column))
        first = self._ends[number - group.number - 1] if number > group.number else 0
        name = f"{self.name}: {group.file} row {row - first} (id {id_})"
        if not turns or not (image or {}).get("bytes"):
            raise ValueError(f"{name}: no {'image' if turns else 'caption'}")
        return Sample(name, from_turns(turns, images=[image["bytes"]]))

    def _read(self, number: int) -> pa.Table:
        group = self._groups[number]
        with self._folder.filesystem.open_input_file(f"{self._folder.path}/{group.file}") as opened:
            columns = ["id", "image", self._column]
            return pq.ParquetFile(opened, pre_buffer=True).read_row_group(group.number, columns=columns)

    def _footer(self, file: str) -> pq.FileMetaData | None:
        try:
            with self._folder.filesystem.open_input_file(f"{self._folder.path}/{file}") as opened:
                return pq.ParquetFile(opened).metadata if opened.size() else None
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.name}: {self._path}/{file}: no Parquet file: copy it again") from error

    def _conversations(self, footers: list[Any], caption: str) -> str:
        footer = next((footer for footer in footers if footer is not None), None)
        names = footer.schema.to_arrow_schema().names if footer is not None else []
        if footer is not None and not {"id", "image", "conversations", f"{caption}_caption"} <= set(names):
            raise ValueError(
                f"{self.name}: {self._path}: no {caption} captions in its shards: caption the run, publish it"
            )
        return column if (column := f"{caption}_conversations") in names else "conversations"


def _shards(path: str, caption: str) -> tuple[Folder, list[str]]:
    """Where the shards are: in the folder, or in the subset with this caption, or with both; by name."""
    top = Folder.at(path)
    for folder in (top, top.join(caption), top.join(TOGETHER)):
        names = sorted(folder.relative(info.path) for info in folder.files())
        if shards := [name for name in names if name.startswith("shard-") and name.endswith(".parquet")]:
            return folder, shards
    raise ValueError(
        f"{path}: no shards (shard-*.parquet), nor in {caption}/ or {TOGETHER}/: give what publish has written"
    )
