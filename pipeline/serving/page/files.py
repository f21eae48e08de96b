"""The images and films of one conversation: each in the conversation's folder, under a name that we give it."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import BadSampleError, UserError
from core.image_header import BadImageError, read_header
from core.text import printable

_MOVES = ("GIF", "PNG")  # of these, what moves is a film
_LONGEST_NAME = 80


@dataclass(frozen=True)
class MediaFile:
    """An image or a film.

    Attributes:
        path: Where it is.
        name: The visitor's name for it, to be shown.
        kind: What it is.
    """

    path: Path
    name: str
    kind: Literal["image", "video"]

    def part(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as a part of a message; `clip` are the options of films."""
        return {"type": self.kind, self.kind: str(self.path), **(clip if self.kind == "video" else {})}


def adopt(files: Sequence[str | Path], folder: Path, first: int, most_bytes: int) -> list[MediaFile]:
    """Link uploaded files into a folder, which is on the same disk.

    Args:
        files: What was uploaded.
        folder: Whose files they become.
        first: Number of the first one.
        most_bytes: Largest size of all together.

    Raises:
        UserError: They are too large together.
        BadSampleError: One of them is no regular file.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise BadSampleError(f"{_shown(path)}: no file: add it again")
    if sum(path.stat().st_size for path in paths) > most_bytes:
        raise UserError(f"more than {most_bytes:,} bytes: send fewer or smaller files, or start with --max-request-mb")
    return [_adopted(path, folder / f"medium-{number}") for number, path in enumerate(paths, first)]


def _adopted(path: Path, target: Path) -> MediaFile:
    name, kind = _shown(path), _kind(path)
    if kind == "video":  # an ending may choose the decoder; it is one of a few, and not the visitor's
        target = target.with_suffix(_ending(path))
    os.link(path, target)  # the upload itself may be another visitor's, too: its name is made of its content
    return MediaFile(target, name, kind)


def _ending(path: Path) -> str:
    guessed = mimetypes.guess_type(path.name)[0] or ""
    return (mimetypes.guess_extension(guessed) or ".mp4") if guessed.startswith("video/") else ".mp4"


def _kind(path: Path) -> Literal["image", "video"]:
    try:
        with path.open("rb") as file:
            header = read_header(file)
    except (BadImageError, OSError):
        named = mimetypes.guess_type(path.name)[0] or ""
        return "image" if named.startswith("image/") else "video"
    return "video" if header.animated and header.format in _MOVES else "image"


def _shown(path: Path) -> str:
    return printable(path.name)[:_LONGEST_NAME]


def without_paths(text: str, files: Sequence[MediaFile]) -> str:
    """Return an error with the visitor's names instead of paths."""
    for file in sorted(files, key=lambda file: -len(str(file.path))):
        text = text.replace(str(file.path), file.name)
    return text
