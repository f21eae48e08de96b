"""Folders of image files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, ClassVar

from pyarrow import fs as pafs

from core.errors import BadSampleError
from core.image_header import IMAGE_ENDINGS, read_header
from manifests.storage import Folder
from pipeline.pools.base import Pool
from pipeline.pools.entries import entries
from pipeline.pools.images import Failure, Group
from pipeline.pools.listing import Shard, is_candidate
from pipeline.pools.look import Look
from pipeline.pools.rows import Row, measure

_BARE = 8  # files without an ending whose first bytes are looked at


class ImageFiles(Pool):
    """A folder of image files, searched recursively."""

    shard_is_image: ClassVar = True

    def shards(self, root: Folder, passed_over: Counter[str]) -> Iterator[Shard]:
        for path, size, problem in entries(root, self.follow_links):
            if any(part.startswith(".") for part in PurePosixPath(path).parts):
                passed_over["hidden"] += 1
            elif is_candidate(path) or problem:
                yield Shard(path, 0 if problem else size, problem)
            else:
                passed_over[PurePosixPath(path).suffix.lower()] += 1

    def recognises(self, look: Look) -> str:
        if not look.is_folder:
            return ""
        bare = [name for name in look.names if not PurePosixPath(name).suffix]
        names = look.ending(IMAGE_ENDINGS) or (bare if any(_is_image(look, name) for name in bare[:_BARE]) else [])
        return f"a folder of images ({look.summary(names)})" if names else ""

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        yield file_row(root, shard, self.follow_links)

    def joins(self, group: Group, offset: int, length: int) -> bool:
        return False

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        return [self.read_file(root, group.shard)]

    def read_file(self, root: Folder, path: str) -> bytes | Failure:
        """Return the image in a file, or a `Failure` if there is no such file."""
        try:
            if not root.local or self.follow_links:
                return root.read(path)
            return root.read_inside(path)  # it may have become a link since it was indexed
        except FileNotFoundError as error:
            return Failure(f"unreadable: {error}", retry=True, deleted=_has_neighbours(root, path))


def _is_image(look: Look, name: str) -> bool:
    try:
        with look.open(name) as file:
            read_header(file)
    except (BadSampleError, OSError):
        return False
    return True


def file_row(root: Folder, shard: Shard, follow_links: bool | None) -> Row:
    """Return the row of an image that is a file of its own."""
    image: bytes | BinaryIO
    if not root.local:
        image = root.read(shard.path)
    else:
        image = open(f"{root.path}/{shard.path}", "rb") if follow_links else root.open_inside(shard.path)
    return {"key": shard.path, "offset": 0, **measure(image, shard.bytes)}


def _has_neighbours(root: Folder, path: str) -> bool:
    """Return whether the folder of a missing file holds others; the folder of an unmounted disk is empty."""
    folder = f"{root.path}/{path}".rpartition("/")[0]
    if not root.local:
        return bool(root.filesystem.get_file_info(folder).type == pafs.FileType.Directory)
    try:
        with os.scandir(folder) as neighbours:
            return any(True for _ in neighbours)
    except (FileNotFoundError, NotADirectoryError):
        return False
