"""Name the colours of an image: the 11 basic terms of English (Berlin and Kay 1969), by nearest prototype in CIELAB."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 64  # pixels; enough to measure areas
_BITS = 5  # bits per channel of the lookup table; more would hardly change a name
_LEAST = 0.03  # share of the area; smaller areas are ignored

# sRGB. Several prototypes represent a term that covers many colours.
_CSS = {
    "black": "#000000",
    "white": "#ffffff #faf0e6",
    "grey": "#808080 #a9a9a9 #708090",
    "red": "#ff0000 #b22222 #8b0000 #dc143c",
    "orange": "#ffa500 #ff8c00",
    "yellow": "#ffff00 #ffd700 #f0e68c",
    "green": "#008000 #556b2f #90ee90 #2e8b57",
    "blue": "#0000ff #4169e1 #1e90ff #87ceeb #191970 #4682b4 #b0c4de #008b8b",
    "purple": "#800080 #9370db #4b0082",
    "pink": "#ffc0cb #ff69b4 #ff1493",
    "brown": "#8b4513 #a0522d #d2b48c",
}
"""Named colours of CSS (CSS Color 4), mostly with the same name or a shade of it."""

_BY_EYE = {
    "black": "#1c1c1c #2a2a2e",
    "white": "#f2f2f2",
    "grey": "#555555 #c8c8c8",
    "orange": "#ff7f00",
    "green": "#00c800 #3b4a2b",
    "blue": "#27408b",
    "brown": "#654321 #4a3525 #bc8f6f",
}
"""Colours that are common in photographs but have no CSS name, named by eye."""

NAMES = tuple(_CSS)

Vectors = npt.NDArray[np.float64]


def colours(image: Image.Image) -> tuple[list[str], list[float]]:
    """Return the colours of an RGB image, largest area first.

    Every pixel of a small copy is named separately. With the usual reduction to a palette of 8, up to a quarter of a
    photograph's area was named after mean colours that do not occur in it.

    Returns:
        Names, each once, and their shares of the area, 0.03 to 1. The shares sum to 1 minus the areas below 0.03.
    """
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX)).reshape(-1, 3)
    red, green, blue = (small >> 8 - _BITS).T.astype(np.intp)
    shares = np.bincount(_table()[red, green, blue], minlength=len(NAMES)) / _SIDE**2
    ranked = sorted(((-share, name) for name, share in zip(NAMES, shares.tolist(), strict=True) if share >= _LEAST))
    return [name for _, name in ranked], [-share for share, _ in ranked]


def to_lab(rgb: Vectors) -> Vectors:
    """Convert sRGB, (n, 3), 0 to 255, to CIELAB under D65 (IEC 61966-2-1; CIE 15:2004), (n, 3)."""
    scaled = rgb / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@cache
def _table() -> npt.NDArray[np.int8]:
    """Return the index in `NAMES` of each colour at 5 bits per channel, (32, 32, 32)."""
    steps = np.arange(1 << _BITS)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    middles = ((cells + 0.5) * (1 << 8 - _BITS)).astype(np.float64)
    return _nearest(middles).astype(np.int8).reshape(3 * (len(steps),))


def _nearest(rgb: Vectors) -> npt.NDArray[np.intp]:
    """Return the indices in `NAMES`, (n,), of sRGB colours, (n, 3), 0 to 255."""
    names, prototypes = _prototypes()
    squares = (prototypes**2).sum(axis=1) - 2 * to_lab(rgb) @ prototypes.T  # without the term that is the same for all
    nearest: npt.NDArray[np.intp] = names[np.argmin(squares, axis=1)]
    return nearest


@cache
def _prototypes() -> tuple[npt.NDArray[np.intp], Vectors]:
    """Return the indices in `NAMES` of the prototypes, and their CIELAB values."""
    pairs = [(NAMES.index(name), code) for table in (_CSS, _BY_EYE) for name in table for code in table[name].split()]
    rgb = np.array([[int(code[start : start + 2], 16) for start in (1, 3, 5)] for _, code in pairs], np.float64)
    return np.array([number for number, _ in pairs], np.intp), to_lab(rgb)
