"""Read samples from published shards: an image, a question, its caption. Row groups are read in place.

What reads Parquet is imported when shards are opened, so that a training on annotations does without it.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, Self

from core.errors import BadSampleError, UserError
from core.paths import absolute
from model.training.data.block_cache import BlockCache
from model.training.data.conversations import from_turns
from model.training.data.samples import Sample
from model.training.data.source import Source, SourceConfig
from model.training.fingerprint import sampled_fingerprint
from model.training.values import PathText

if TYPE_CHECKING:
    import pyarrow as pa

    from manifests.storage import Folder

log = logging.getLogger("vl3syn.train")

Caption = Literal["short", "detailed", "ocr"]

_LARGEST = 1 << 30  # maximum bytes of a row group in memory
_FOOTERS = 16  # footers that are read in parallel: on an object store each is a request


@dataclass(frozen=True)
class _Group:
    file: str
    number: int
    rows: int
    column: str


class ShardConfig(SourceConfig):
    """Settings of published shards as a source.

    Attributes:
        shards: A published dataset or one of its subsets: a folder or a URL such as s3://….
        caption: The caption that is learned. `ocr` is the short one with each text in the image and its box.
    """

    shards: PathText
    caption: Caption = "detailed"

    @property
    def location(self) -> str:
        return self.shards

    def open(self, name: str, blocks_in_memory: int = 8) -> ShardSource:
        return ShardSource(name, self.shards, self.caption, blocks_in_memory)

    def at(self, location: str) -> Self:
        return self.model_copy(update={"shards": location, "held_out": 0})

    def fingerprint(self) -> str:
        folder, _, names = _shards(self.shards.rstrip("/"), self.caption)
        return sampled_fingerprint(folder, names)

    def with_absolute_paths(self) -> Self:
        return self.model_copy(update={"shards": absolute(self.shards)})


class ShardSource(Source):
    """A published dataset. A block is a row group, shard after shard."""

    def __init__(self, name: str, path: str, caption: Caption = "detailed", blocks_in_memory: int = 8) -> None:
        """Read the footers of all shards. A shard without rows is skipped with a warning.

        Args:
            name: Name for messages.
            path: The dataset or one of its subsets: a folder or a URL.
            caption: The caption that is learned.
            blocks_in_memory: Number of row groups that are cached.

        Raises:
            UserError: There are no shards, a shard is broken, or a shard lacks this caption.
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
        self._kept: BlockCache[pa.Table] = BlockCache(self._read, blocks_in_memory)
        if not self.blocks:
            raise UserError(f"{name}: {self._path}: no images in its shards: publish a run there")

    def sample(self, row: int) -> Sample:
        """Return the sample of a row.

        Raises:
            BadSampleError: It has no image or no caption, or a text is not UTF-8.
            UserError: The file's row group is damaged.
            OSError: The file cannot be reached.
        """
        number = bisect_right(self._ends, row)
        group = self._groups[number]
        offset = row - (self._ends[number] - group.rows)
        table = self._kept(number)
        first = self._ends[number - group.number - 1] if number > group.number else 0
        name = f"{self.name}: {group.file} row {row - first}"
        try:
            id_, image, turns = (table[column][offset].as_py() for column in ("id", "image", group.column))
        except UnicodeDecodeError as error:  # Parquet readers do not validate texts
            raise BadSampleError(f"{name}: a text that is not UTF-8: publish it again") from error
        name = f"{name} (id {id_})"
        if not turns or not (image or {}).get("bytes"):
            raise BadSampleError(f"{name}: no {'image' if turns else 'caption'}")
        try:
            return Sample(name, from_turns(turns, images=[image["bytes"]]))
        except BadSampleError as error:
            raise BadSampleError(f"{name}: {error}") from error

    def check(self) -> None:
        """Do nothing: all footers were read, and a sample would cost a row group."""

    def _read(self, number: int) -> pa.Table:
        from core.parquet import Parquet

        group = self._groups[number]
        with self._opened(group.file, f"row group {group.number} is damaged") as file:
            return Parquet(file).group(group.number, ["id", "image.bytes", group.column], _LARGEST)

    def _columns(self, file: str) -> tuple[pa.Schema, list[int]] | None:
        """Return the schema of a shard and the number of rows of each row group; None for an empty file."""
        from core.parquet import Parquet

        with self._opened(file, "no whole Parquet file") as opened:
            if not opened.size():
                return None
            parquet = Parquet(opened)
            return parquet.schema, parquet.row_groups

    @contextmanager
    def _opened(self, file: str, fault: str) -> Iterator[pa.NativeFile]:
        """Open a shard for reading. Damaged contents raise a UserError that says `fault`."""
        import pyarrow as pa

        with self._folder.filesystem.open_input_file(f"{self._folder.path}/{file}") as opened:
            try:
                yield opened
            except BadSampleError as error:
                raise UserError(f"{self.name}: {self._path}/{file}: {error}") from error
            except (pa.ArrowException, OSError) as error:
                opened.read_at(8, 0)  # raises again if the store is unreachable, so that the file is not blamed
                reason = " ".join(str(error).split())
                raise UserError(f"{self.name}: {self._path}/{file}: {fault}: copy it again ({reason})") from error

    def _conversations(self, file: str, schema: pa.Schema, caption: str) -> str:
        """Return the name of the column with the turns of this caption."""
        from core.arrow_types import check_plain
        from manifests.shards import OCR, SUBSETS, USES, conversation_column

        names = set(schema.names)
        captions = [use for use in USES if f"{use}_caption" in names]
        if not captions and "caption" in names and self._path.rpartition("/")[2] not in set(SUBSETS) - {caption}:
            captions = [caption]  # a subset with one caption: its name says which
        column = conversation_column(caption, captions) if caption in captions else ""
        if not {"id", "image", column} <= names:
            remedy = "publish the run with `subsets: [ocr]`" if caption == OCR else "caption the run, publish it"
            raise UserError(f"{self.name}: {self._path}/{file}: no {caption} captions: {remedy}")
        try:
            check_plain(schema, ["id", "image.bytes", column])
        except BadSampleError as error:
            raise UserError(f"{self.name}: {self._path}/{file}: {error}") from error
        return column


def _shards(path: str, caption: str) -> tuple[Folder, str, list[str]]:
    """Return the folder of the shards, its path, and the shards' names.

    The folder is `path` itself, its subset with this caption, or its subset with both captions.
    """
    from manifests.shards import TOGETHER
    from manifests.storage import Folder

    top = Folder.at(path)
    for subset in ("", caption, TOGETHER):
        folder = top.join(subset) if subset else top
        names = sorted(folder.relative(info.path) for info in folder.files())
        if shards := [name for name in names if name.startswith("shard-") and name.endswith(".parquet")]:
            return folder, f"{path}/{subset}".rstrip("/"), shards
    raise UserError(
        f"{path}: no shards (shard-*.parquet), nor in {caption}/ or {TOGETHER}/: give what publish has written"
    )
