"""Restrict what annotations may name: regular files below the media folder or below allowed `roots`; folders of frames.

Annotations come from strangers. A path that is absolute, goes up (`../`) or follows a link could make the trainer read
any file of this machine, and expose it in the model or the logs.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

from core.errors import BadSampleError
from core.frame_folders import list_frames
from core.text import printable

_LONGEST = 4096
"""Maximum characters of a path, as in the kernel; image bytes that were given as a path are longer."""
_SHOWN = 200  # characters of a path in an error


class MediaRoot:
    """A media folder, and further folders that its annotations may name."""

    def __init__(self, folder: str | Path, roots: Sequence[str] = ()) -> None:
        """Resolve relative paths against `folder`, and allow files below it and below `roots`. Links are resolved."""
        self._folder = Path(folder)
        self._allowed = [os.path.realpath(root) for root in (folder, *roots)]

    def film(self, path: object) -> str:
        """Return the real path of a film that an annotation names: a file, or a folder of frames.

        Raises:
            BadSampleError: As in `file`, also for a frame of a folder.
        """
        real = self.locate(path)
        if not os.path.isdir(real):
            return self.file(path)
        for frame in list_frames(real):
            self.file(frame)
        return real

    def file(self, path: object) -> str:
        """Return the real path of a file that an annotation names.

        Raises:
            BadSampleError: It is not a path, it lies outside the allowed folders, or it is not a regular file.
        """
        real = self.locate(path)
        if os.path.isdir(real):
            raise BadSampleError(f"{self._folder / _shown(str(path))}: a folder, not a file: name the images in it")
        if not os.path.isfile(real):
            address = ": addresses are not opened: copy the file here, and give its path" if "://" in str(path) else ""
            raise BadSampleError(f"{self._folder / _shown(str(path))}: no such file{address}")
        return real

    def locate(self, path: object) -> str:
        """Return the real path that an annotation names, whether anything is there or not.

        Raises:
            BadSampleError: It is not a path, or it lies outside the allowed folders.
        """
        if not isinstance(path, str):
            raise BadSampleError(f"a path must be a text, not {reprlib.repr(path)}")
        shown = _shown(path)
        if len(path) > _LONGEST:
            raise BadSampleError(f"{shown}: no such file: {len(path):,} characters are no path; name a file")
        try:
            real = os.path.realpath(self._folder / path)  # an absolute path stays what it is
        except (OSError, ValueError) as error:  # a NUL, half a character
            raise BadSampleError(f"{shown}: no path: {error}") from error
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._allowed):
            raise BadSampleError(
                f"{shown}: lies outside of {self._folder}: put it there, or allow its folder by `roots:` of the source "
                "(--root of eval and import)"
            )
        return real


def _shown(path: str) -> str:
    return printable(path[:_SHOWN]) + ("…" if len(path) > _SHOWN else "")
