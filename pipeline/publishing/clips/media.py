"""Where the films of published records are: in the pool, or in the data set as a file for each clip."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.clip_writer import WrittenClip, copy_clip, encode_clip
from core.containers import open_film
from core.errors import UserError
from core.films import FilmFile
from core.records import Medium
from manifests.storage import Folder

Films = Literal["reference", "copy", "encode"]

MEDIA = "media"
"""Folder of the clips in the data set."""

KEY = "v0"
"""Key of a clip in its records."""

_DIGITS = 6  # of a second


def media_folder(number: int) -> str:
    """Return the folder of the clips of a shard, relative to the data set."""
    return f"{MEDIA}/{number:05d}"


@dataclass(frozen=True)
class ClipMedia:
    """Makes the medium of each clip.

    Attributes:
        films: What becomes of the films, see `PublishClips`.
        out: The folder of the data set.
        root: For `reference`: the local folder that paths are relative to.
    """

    films: Films
    out: Folder
    root: str = ""

    def medium(self, row: Mapping[str, Any], film: FilmFile, number: int) -> Medium:
        """Return the medium of a clip, whose file is written if it is to be and is not there.

        Args:
            row: The index of the clip.
            film: The film of the clip.
            number: The number of the shard.

        Raises:
            BadSampleError: The film cannot be read or cut.
            UserError: The film is in no file, or outside of the folder that paths are relative to; the disk is full.
        """
        span = {"start": round(row["start"], _DIGITS), "end": round(row["end"], _DIGITS)}
        length = round(row["end"] - row["start"], _DIGITS)
        if self.films == "reference":
            return _medium(row, path=self._path(film), duration=length, **span)
        clip, path = self._write(row, film, number)
        if clip is None or clip.is_exact:
            return _medium(row, path=path, is_cut=True, duration=length, **span)
        start = round(clip.start, _DIGITS)
        return _medium(row, path=path, start=start, end=round(start + length, _DIGITS), duration=length)

    def _path(self, film: FilmFile) -> str:
        if film.file is None:
            raise UserError(
                f"publish: {film} is in a tar or a store, which a record cannot name: set films to copy or encode"
            )
        path = os.path.relpath(os.path.realpath(film.file), os.path.realpath(self.root))
        if path.split(os.sep)[0] == os.pardir:
            raise UserError(f"publish: {film} lies outside of {self.root}: set media to a folder above all films")
        with open_film(film):
            return path

    def _write(self, row: Mapping[str, Any], film: FilmFile, number: int) -> tuple[WrittenClip | None, str]:
        """Return the clip and its path in the data set; None for an encoded one that is there."""
        folder, name = self.out.join(media_folder(number)), str(row["id"])
        if self.films == "encode" and folder.exists(f"{name}.mp4"):
            return None, f"{media_folder(number)}/{name}.mp4"
        write = copy_clip if self.films == "copy" else encode_clip
        with tempfile.TemporaryDirectory() as temporary:
            clip = write(film, row["start"], row["end"], Path(temporary), name)
            if not folder.exists(clip.path.name):
                folder.take(clip.path, clip.path.name)
        return clip, f"{media_folder(number)}/{clip.path.name}"


def _medium(row: Mapping[str, Any], **fields: Any) -> Medium:
    sizes = {side: row[side] for side in ("width", "height") if (row.get(side) or 0) > 0}
    return Medium(key=KEY, type="video", present=True, **sizes, **fields)


def check_root(root: Folder, media: str | None) -> str:
    """Return the folder that paths of referenced films are relative to.

    Args:
        root: The folder of the pool.
        media: The setting; None: the folder of the pool.

    Raises:
        UserError: There is no such local folder.
    """
    if media is None and not root.local:
        raise UserError("publish: the films are in a store, which a record cannot name: set films to copy or encode")
    folder = os.path.abspath(root.path if media is None else media)
    if not os.path.isdir(folder):
        raise UserError(f"publish: media {folder}: no such folder: name the one that the films lie in")
    return folder


def check_settings(films: Films, media: str | None) -> None:
    """Refuse a media folder where no film is referenced.

    Raises:
        UserError: There is one.
    """
    if media is not None and films != "reference":
        raise UserError(f"publish: media is for films: reference, and films is {films}: leave it out")
