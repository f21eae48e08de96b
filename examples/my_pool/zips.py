"""A kind of pool of your own: zip archives of images. Copy this file and change `rows` and `read_images`."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import ClassVar
from zipfile import BadZipFile, ZipFile, ZipInfo

from core.errors import BadSampleError
from core.image_header import MAX_BYTES
from manifests.storage import Folder
from pipeline.pools.globs import GlobPool
from pipeline.pools.images import Failure, Group
from pipeline.pools.listing import Shard, is_candidate
from pipeline.pools.rows import Row, measure, on_disk


class Zips(GlobPool):
    """A glob of zip archives of images.

    Attributes:
        members: Glob of the members that are images; default all that end as images do.
    """

    ending: ClassVar = ".zip"

    members: str = "*"

    def rows(self, root: Folder, shard: Shard, passed_over: Counter[str]) -> Iterator[Row]:
        try:
            with on_disk(root, shard.path) as file, ZipFile(file) as archive:
                for number, member in enumerate(archive.infolist()):
                    if member.is_dir():
                        continue
                    if fnmatchcase(member.filename, self.members) and is_candidate(member.filename):
                        data = _read(archive, member)
                        row = {"error": data.error} if isinstance(data, Failure) else measure(data)
                        yield {"key": member.filename, "offset": number, **row}
                    else:
                        passed_over[PurePath(member.filename).suffix] += 1
        except BadZipFile as error:
            raise BadSampleError(f"broken zip: {error}") from error

    def read_images(self, root: Folder, group: Group) -> list[bytes | Failure]:
        with root.filesystem.open_input_file(f"{root.path}/{group.shard}") as file, ZipFile(file) as archive:
            members = archive.infolist()
            return [_read(archive, members[number]) for number in group.offsets]


def _read(archive: ZipFile, member: ZipInfo) -> bytes | Failure:
    if member.file_size > MAX_BYTES:
        return Failure(f"too long: {member.file_size:,} bytes")
    try:
        return archive.read(member)
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return Failure(f"broken member: {error}")
