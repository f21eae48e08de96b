"""Groups of images that are read together, and what is returned for an image that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

IMAGE_ADDRESS = ("shard", "key", "offset", "bytes")
"""The columns of the index that say where an image is."""

SPAN = 8 << 20
"""Bytes of one read; held in memory until its images are decoded."""


class Failure(NamedTuple):
    """Why a row has no result, whether it can be retried, and whether its file was deleted from a folder of others."""

    error: str
    retry: bool = False
    deleted: bool = False


@dataclass(frozen=True)
class Group:
    """Images that are read together.

    Attributes:
        shard: The file that holds them.
        section: Number of the section of the shard that holds them (`Pool.section_ends`); -1 if it is unknown.
        rows: Their row numbers in the requested table.
        keys, offsets, lengths: Values from the index; a length is 0 where the index has none.
    """

    shard: str
    section: int = 0
    rows: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.offsets[-1] + self.lengths[-1]
