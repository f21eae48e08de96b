"""A folder of frames as a film: its images in the natural order of their names, at a given rate."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.errors import BadSampleError
from core.images import decode
from core.text import printable

STILLS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Endings of frames."""


def list_frames(folder: str | Path) -> list[str]:
    """Return the paths of a folder's frames, frame2 before frame10. Hidden files are passed over.

    Raises:
        BadSampleError: The folder cannot be read, has no frames, or anything else is in it.
    """
    try:
        files = [file for file in Path(folder).iterdir() if not file.name.startswith(".")]
        others = [file.name for file in files if file.suffix.lower() not in STILLS or not file.is_file()]
    except OSError as error:
        raise BadSampleError(f"{folder}: cannot be read: {error.strerror}") from error
    if others:
        other, kinds = printable(min(others)), ", ".join(STILLS)
        raise BadSampleError(f"{folder}: {other} is no frame: leave only the film's frames there, as {kinds}")
    if not files:
        raise BadSampleError(f"{folder}: a folder without frames: give one with images, or a video file")
    return [str(file) for file in sorted(files, key=lambda file: _natural(file.name))]


def _natural(name: str) -> list[str | int]:
    """Return a key that sorts the numbers in a name by their value."""
    return [int(piece) if number % 2 else piece for number, piece in enumerate(re.split("([0-9]{1,18})", name))]


def read_frame(path: str) -> npt.NDArray[np.uint8]:
    """Decode one frame as any image is decoded, uint8 (H, W, 3).

    Raises:
        BadSampleError: It cannot be read.
    """
    try:
        image: Image.Image = decode(Path(path).read_bytes())
    except (OSError, BadSampleError) as error:
        raise BadSampleError(f"{path}: cannot be read as a frame: {' '.join(str(error).split())}") from error
    return np.array(image)
