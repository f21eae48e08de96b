"""A film that is a file, or a part of one: how to open it, for stages that read films."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from core.errors import BadSampleError

FILM_ENDINGS = frozenset(
    ".mp4 .m4v .mov .qt .3gp .3gpp .3g2 .f4v .mkv .webm .avi .divx .mpg .mpeg .mpe .m1v .m2v .mpv .vob .ts .m2ts "
    ".mts .flv .wmv .asf .ogv .ogm .mxf .rm .rmvb .dv .nut .wtv .ivf .obu .y4m .h264 .264 .avc .h265 .265 .hevc "
    ".mjpg .mjpeg".split()
)
"""Files with one of these endings may be films. Their bytes decide the container."""


class FilmLostError(BadSampleError):
    """The disk or the network did not deliver a film, or its file has another length: trying again may help.

    A file that is copied over while it is read has another length until it is whole again.
    """


@dataclass(frozen=True)
class FilmFile:
    """A film of a pool. `core.containers.open_film` and `core.videos.probe` take it in place of a path.

    Attributes:
        name: Its name in errors.
        path: Path of a local file that is the film; None: `open` returns it.
        open: Opens the film as a binary file that can seek: a member of a tar, an object of a store. It may raise an
            OSError, or a BadSampleError that says why it must not be opened.
        length: Its length in bytes when it was indexed; None: unknown. Another length now means another film.
        place: Where the local file lies that `open` opens; None: it is in a tar, a table or a store, or `path` says it.
    """

    name: str
    path: str | None = None
    open: Callable[[], BinaryIO] | None = None
    length: int | None = None
    place: str | None = None

    @property
    def file(self) -> str | None:
        """Path of the local file that is the film; None: it is in a tar, a table or a store."""
        return self.path or self.place

    def __str__(self) -> str:
        return self.name
