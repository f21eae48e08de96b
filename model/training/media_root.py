"""Which files annotations may name: regular ones below the media's folder, or below folders that the recipe allows.

Annotations come from strangers. A path that is absolute, goes up (`../`) or through a link could have any file of this
machine read, and shown in what a model learns and in what is logged.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

from core.errors import BadSampleError
from core.text import printable

_LONGEST = 4096
"""Characters of a path, as the kernel has it; bytes of an image that stand in its place are longer."""
_SHOWN = 200  # characters of a path in an error


class MediaRoot:
    """A folder with media, and further folders that its annotations may name."""

    def __init__(self, folder: str | Path, roots: Sequence[str] = ()) -> None:
        """Relative paths are of `folder`; `roots` are allowed beside it. Links are resolved, in them too."""
        self._folder = Path(folder)
        self._allowed = [os.path.realpath(root) for root in (folder, *roots)]

    def file(self, path: object) -> str:
        """The real path of a file that annotations name.

        Raises:
            BadSampleError: It is no path, lies elsewhere, or no regular file is there.
        """
        if not isinstance(path, str):
            raise BadSampleError(f"a path must be a text, not {reprlib.repr(path)}")
        shown = printable(path[:_SHOWN]) + ("…" if len(path) > _SHOWN else "")
        if len(path) > _LONGEST:
            raise BadSampleError(f"{shown}: no such file: {len(path):,} characters are no path; name a file")
        try:
            real = os.path.realpath(self._folder / path)  # an absolute path stays what it is
        except (OSError, ValueError) as error:  # a NUL, half a character
            raise BadSampleError(f"{shown}: no path: {error}") from error
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._allowed):
            raise BadSampleError(
                f"{shown}: lies outside of {self._folder}: put it there, or allow its folder by `roots:` of the source "
                "(--root of eval)"
            )
        if os.path.isdir(real):
            raise BadSampleError(
                f"{self._folder / shown}: a folder, not a file: name the images in it; a film as a folder of frames is "
                "not read: make it one film"
            )
        if not os.path.isfile(real):
            address = ": addresses are not opened: copy the file here, and give its path" if "://" in path else ""
            raise BadSampleError(f"{self._folder / shown}: no such file{address}")
        return real
