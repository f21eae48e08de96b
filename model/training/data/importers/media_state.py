"""Look at the media that a draft names: whether they are there, what they are, how large.

A missing file is a state of the medium, and no error: annotations are published without their media. A file that is
something else than the annotation says makes the record a bad one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from core.errors import BadSampleError
from core.frame_folders import list_frames
from core.image_header import BadImageError, read_header
from core.records import Medium
from model.training.data.media_root import MediaRoot

Probe = Literal["none", "images", "all"]
"""What is opened: nothing; images, whose header is read at once; films too, which takes far longer."""

_CACHED = 4096
_SHAPE_SHARE, _SHAPE_PIXELS = 0.01, 2  # how far shapes may differ: sides are rounded
_FILM_ENDINGS = (".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")
_LOOKED_UP = ("present", "path")
_STILL_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")


class MediaFolder:
    """The folder that the media of an import lie in.

    Attributes:
        folder: The folder; None if there is none.
    """

    def __init__(self, folder: Path | None, probe: Probe = "images", roots: Sequence[str] = ()) -> None:
        """Look below a folder.

        Args:
            folder: Paths are relative to it. None if there is none; then nothing is known of the media.
            probe: What is opened.
            roots: Further folders that media may lie below, after links are resolved.
        """
        self.folder = folder
        self._root = MediaRoot(folder, roots) if folder else None
        self._probe = probe
        self._state = lru_cache(_CACHED)(self._look)

    def look(self, medium: Medium, has_boxes: bool = False) -> Medium:
        """Return the medium with `present` and what its header says; a size that it has already stays.

        Args:
            medium: The medium.
            has_boxes: Boxes were scaled with the size that it has.

        Raises:
            BadSampleError: It lies outside of the folder, cannot be read, is of another kind, or of another shape than
                that of its boxes.
        """
        if self._root is None:
            return medium
        state = self._state(medium.path, medium.type)
        if isinstance(state, str):
            raise BadSampleError(state)
        if has_boxes and medium.type == "image" and "width" in state:
            check_shape(medium, state["width"], state["height"])
        known = {name: value for name, value in state.items() if name in _LOOKED_UP or not getattr(medium, name)}
        if medium.start is not None or medium.end is not None:
            length = known.pop("duration", None)
            if not medium.is_cut and length is not None and (medium.end or medium.start or 0.0) > length + 1.0:
                raise BadSampleError(f"clip outside of the film: {medium.path} has {length:.1f} s")
        return medium.model_copy(update=known)

    def _look(self, path: str, kind: str) -> dict[str, Any] | str:
        """Return what is known of a file, or why it cannot be used."""
        assert self._root is not None
        try:
            real = self._root.locate(path)
            if os.path.isdir(real):
                return self._folder(real, path, kind)
            if not os.path.isfile(real):
                return self._with_ending(path, kind)
            return {"present": True, **(self._image(real, path) if kind == "image" else self._film(real, path))}
        except BadSampleError as error:
            reason = " ".join(str(error).split())
            return reason if reason.startswith("media ") else f"media unreadable: {reason}"

    def _with_ending(self, path: str, kind: str) -> dict[str, Any]:
        """Return the film that an id without an ending means: some sets name films by their ids alone."""
        assert self._root is not None
        if kind == "video" and not path.lower().endswith(_FILM_ENDINGS):
            for ending in _FILM_ENDINGS:
                if os.path.isfile(real := self._root.locate(path + ending)):
                    return {"present": True, "path": path + ending, **self._film(real, path + ending)}
        return {"present": False}

    def _folder(self, real: str, path: str, kind: str) -> dict[str, Any]:
        if kind == "image":
            raise BadSampleError(f"media of another kind: {path} is a folder, not an image")
        list_frames(real)
        return {"present": True, "is_frame_folder": True}

    def _image(self, real: str, path: str) -> dict[str, Any]:
        if self._probe == "none":
            return {}
        try:
            with open(real, "rb") as file:
                header = read_header(file)
        except BadImageError as error:
            if real.lower().endswith(_FILM_ENDINGS):
                raise BadSampleError(f"media of another kind: {path} is a film, not an image") from error
            raise BadSampleError(f"{path}: {error}") from error
        except OSError as error:
            raise BadSampleError(f"{path}: {error.strerror or error}") from error
        return {"width": header.width, "height": header.height}

    def _film(self, real: str, path: str) -> dict[str, Any]:
        if self._probe == "none":
            return {}
        with open(real, "rb") as file:
            if file.read(16).startswith(_STILL_STARTS):
                raise BadSampleError(f"media of another kind: {path} is an image, not a film")
        return _film_header(real) if self._probe == "all" else {}


def check_shape(medium: Medium, width: int, height: int) -> None:
    """Refuse a picture whose sides have another ratio than those that its boxes were scaled with.

    It was turned or cropped, or is another file of that name. One that was only made smaller or larger is fine: boxes
    are said in thousandths of the sides.

    Raises:
        BadSampleError: They differ by more than a hundredth, and by more than two pixels of the smaller picture.
    """
    if not medium.width or not medium.height:
        return
    one, other = medium.width * height, medium.height * width
    longest = max(medium.width, medium.height, width, height)
    if abs(one - other) > max(_SHAPE_SHARE * max(one, other), _SHAPE_PIXELS * longest):
        sizes = f"{medium.path} is {width}x{height}, its boxes are of {medium.width}x{medium.height}"
        raise BadSampleError(f"media of another shape: {sizes}")


def _film_header(real: str) -> dict[str, Any]:
    """Return width, height, duration and rate of a film, as far as its header has them."""
    from core.containers import open_film

    with open_film(real) as (container, stream):
        seconds = float((stream.duration or 0) * stream.time_base) or (container.duration or 0) / 1e6
        known = {
            "width": stream.width or None,
            "height": stream.height or None,
            "duration": seconds or None,
            "fps": float(stream.average_rate or 0) or None,
        }
    return {name: value for name, value in known.items() if value}
