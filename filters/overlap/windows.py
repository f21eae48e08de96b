"""Perceptual hashes of an image and of its crops, computed together, and how well two crops agree."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Image import Resampling

SIDE = 128
"""Width and height of a thumbnail, pixels: the luma of the whole image, whatever its shape."""

MOST, STEP = 0.2, 0.05
"""Crops take up to a fifth of the width and a fifth of the height off, in steps of a twentieth from each side."""

NO_HASH = 64
"""Distance of what has no structure to anything."""

_SCALED, _LOW = 32, 8  # of imagehash.phash: pixels of the DCT's input, and its lowest frequencies that are kept
_ALIGNED = 64  # pixels: side of what is aligned
_BLOCK = 8  # pixels: side of a block of what is compared
_VISIBLE = 2.0  # grey levels; less variation is no structure, as in `filters.hashes`
_STRUCTURE = 6.0  # grey levels; a block with a smaller standard deviation has no structure
_ALIKE = 0.7  # correlation of two blocks that show the same

Thumbnail = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]


class Window(NamedTuple):
    """A part of an image: what is cut off from each side, as shares of its width or height."""

    left: float = 0.0
    top: float = 0.0
    right: float = 0.0
    bottom: float = 0.0

    @property
    def area(self) -> float:
        """Share of the image's area that is left."""
        return (1 - self.left - self.right) * (1 - self.top - self.bottom)


class Agreement(NamedTuple):
    """How well two pictures of one size agree.

    Attributes:
        correlation: Of their grey levels, -1 to 1; contrast and brightness do not matter.
        changed: Of the 16 × 16 blocks that have structure, the share in which they do not correlate: other words on the
            same template, for example.
    """

    correlation: float
    changed: float


WHOLE = Window()


def thumbnail(image: Image.Image) -> Thumbnail:
    """Return the luma of an RGB image as (SIDE, SIDE)."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.LANCZOS))


def window_hashes(thumb: Thumbnail) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """Return the perceptual hash of each of `windows()`, and whether it has structure; both (windows).

    The first is that of the whole image. They are `imagehash.phash` of each crop, but for the rounding of the scaled
    luma: two matrix products compute all of them, in 0.2 ms.
    """
    scale, frequencies = _axes()
    luma = thumb.astype(np.float32)
    rows = len(scale)
    spectrum = (frequencies @ luma @ frequencies.T).reshape(rows, _LOW, rows, _LOW)
    low = spectrum.transpose(0, 2, 1, 3).reshape(rows * rows, _LOW * _LOW)
    bits = low > np.median(low, axis=1, keepdims=True)
    hashes = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    structured = np.ptp(thumb, axis=0).max() > _VISIBLE and np.ptp(thumb, axis=1).max() > _VISIBLE
    return hashes, np.full(len(hashes), bool(structured))


@cache
def windows() -> tuple[Window, ...]:
    """Return the crops that are hashed: the whole image, then all combinations of those of the two axes."""
    cuts = _cuts()
    return tuple(Window(left, top, right, bottom) for top, bottom in cuts for left, right in cuts)


@cache
def _cuts() -> list[tuple[float, float]]:
    """Return what is cut off at the two ends of one axis; first nothing."""
    count = round(MOST / STEP)
    return [(a * STEP, b * STEP) for a in range(count + 1) for b in range(count + 1 - a)]


@cache
def _axes() -> tuple[list[Floats], Floats]:
    """For each cut, the matrix that scales one axis, (32, SIDE); and the matrix to frequencies, (cuts · 8, SIDE)."""
    eye = Image.fromarray(np.eye(SIDE, dtype=np.float32))
    scale = []
    for before, after in _cuts():
        box = (0, before * SIDE, SIDE, SIDE - after * SIDE)
        scale.append(np.asarray(eye.resize((SIDE, _SCALED), Resampling.LANCZOS, box=box)))
    k, n = np.arange(_LOW)[:, None], np.arange(_SCALED)[None]
    cosines = np.cos(np.pi * k * (2 * n + 1) / (2 * _SCALED)).astype(np.float32)
    return scale, np.concatenate([cosines @ matrix for matrix in scale])


def distances(hashes: Hashes, other: np.uint64) -> npt.NDArray[np.uint8]:
    """Return the number of bits by which each hash differs from another one, 0 to 64."""
    bits: npt.NDArray[np.uint8] = np.bitwise_count(hashes ^ other)
    return bits


def cut(thumb: Thumbnail, window: Window = WHOLE, side: int = SIDE) -> Floats:
    """Return a window of a thumbnail as float32 (side, side)."""
    box = (window.left * SIDE, window.top * SIDE, SIDE - window.right * SIDE, SIDE - window.bottom * SIDE)
    scaled = Image.fromarray(thumb).resize((side, side), Resampling.BILINEAR, box=box)
    return np.asarray(scaled, np.float32)


def agreement(one: Floats, other: Floats) -> Agreement:
    """Compare two pictures of one size, (side, side)."""
    alike = correlation(one, other)
    if not alike:
        return Agreement(0.0, 1.0)
    blocks, others = _blocks(one), _blocks(other)
    deviation, deviation_of_other = blocks.std(axis=1), others.std(axis=1)
    structured = np.maximum(deviation, deviation_of_other) > _STRUCTURE
    product = (blocks * others).mean(axis=1)
    changed = structured & (product < _ALIKE * np.maximum(deviation * deviation_of_other, 1e-6))
    return Agreement(alike, float(changed.sum() / max(1, structured.sum())))


def correlation(one: Floats, other: Floats) -> float:
    """Return the correlation of two pictures of one size; 0 if one is blank."""
    a, b = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((a * a).mean() * (b * b).mean()))
    return float((a * b).mean()) / spread if spread >= 1 else 0.0  # a grey level


def _blocks(picture: Floats) -> Floats:
    """Return the blocks of a picture, each without its mean: (blocks, pixels)."""
    side = len(picture) // _BLOCK
    blocks = picture.reshape(side, _BLOCK, side, _BLOCK).transpose(0, 2, 1, 3).reshape(side * side, -1)
    centred: Floats = blocks - blocks.mean(axis=1, keepdims=True)
    return centred


def aligned(thumb: Thumbnail, start: Window, other: Thumbnail) -> tuple[Window, Agreement]:
    """Move the sides of a window until it agrees best with another image; return it and how well it agrees.

    Args:
        thumb: The image that the window is a part of.
        start: Where to begin: within a step of the right window.
        other: The other image, of which the window may be a copy.
    """
    whole = cut(other, side=_ALIGNED)
    best, score = start, correlation(cut(thumb, start, _ALIGNED), whole)
    for step in (STEP / 2, STEP / 4, STEP / 8, STEP / 16, STEP / 32):
        for _ in range(4):
            tried = [_moved(best, side, by) for side in range(4) for by in (-step, step)]
            better, window = max((correlation(cut(thumb, window, _ALIGNED), whole), window) for window in tried)
            if better <= score:
                break
            best, score = window, better
    return best, agreement(cut(thumb, best), cut(other))


def _moved(window: Window, side: int, by: float) -> Window:
    values = list(window)
    values[side] = min(max(0.0, values[side] + by), MOST + STEP)
    return Window(*values)
