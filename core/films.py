"""A film that is a file, or a part of one: how to open it, for stages that read films."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class FilmFile:
    """A film of a pool. `core.containers.open_film` and `core.videos.probe` take it in place of a path.

    Attributes:
        name: Its name in errors.
        path: Path of a local file that is the film; None: `open` returns it.
        open: Opens the film as a binary file that can seek: a member of a tar, an object of a store.
        length: Its length in bytes when it was indexed; None: unknown. Another length now means another film.
    """

    name: str
    path: str | None = None
    open: Callable[[], BinaryIO] | None = None
    length: int | None = None

    def __str__(self) -> str:
        return self.name
