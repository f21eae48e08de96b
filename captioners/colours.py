"""The colours of an image by name: the 11 basic terms of English (Berlin and Kay 1969), by the nearest in CIELAB."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 64  # pixels; the areas of colours need no more
_SWATCHES = 8  # colours that an image is reduced to before they are named

# sRGB. The names are CSS's; where a term spans much, several stand for it.
_PROTOTYPES = {
    "black": ("#000000", "#1c1c1c", "#2a2a2e"),
    "white": ("#ffffff", "#f2f2f2", "#faf0e6"),
    "grey": ("#808080", "#555555", "#a9a9a9", "#c8c8c8", "#708090"),
    "red": ("#ff0000", "#b22222", "#8b0000", "#dc143c"),
    "orange": ("#ffa500", "#ff7f00", "#ff8c00"),
    "yellow": ("#ffff00", "#ffd700", "#f0e68c"),
    "green": ("#008000", "#00c800", "#556b2f", "#90ee90", "#2e8b57", "#3b4a2b"),
    "blue": ("#0000ff", "#4169e1", "#27408b", "#1e90ff", "#87ceeb", "#191970", "#4682b4", "#b0c4de", "#008b8b"),
    "purple": ("#800080", "#9370db", "#4b0082"),
    "pink": ("#ffc0cb", "#ff69b4", "#ff1493"),
    "brown": ("#8b4513", "#a0522d", "#654321", "#d2b48c", "#4a3525", "#bc8f6f"),
}

Vectors = npt.NDArray[np.float64]


def colours(image: Image.Image) -> tuple[list[str], list[float]]:
    """The colours of an RGB image, the largest area first.

    Returns:
        Names, each once, and their shares of the area, 0 to 1, which sum to 1.
    """
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX).quantize(_SWATCHES, Image.Quantize.MEDIANCUT)
    palette = np.array(small.getpalette(), np.float64).reshape(-1, 3)
    shares: dict[str, float] = {}
    for count, number in small.getcolors() or ():
        name = name_of(palette[number])  # type: ignore[index]
        shares[name] = shares.get(name, 0.0) + count / _SIDE**2
    ranked = sorted(shares.items(), key=lambda share: (-share[1], share[0]))
    return [name for name, _ in ranked], [share for _, share in ranked]


def name_of(rgb: Vectors) -> str:
    """The basic colour term of an sRGB colour, (3,), 0 to 255."""
    names, prototypes = _named()
    return names[int(np.argmin(np.linalg.norm(prototypes - to_lab(rgb[None]), axis=1)))]


def to_lab(rgb: Vectors) -> Vectors:
    """sRGB, (n, 3), 0 to 255, to CIELAB under D65 (IEC 61966-2-1; CIE 15:2004), (n, 3)."""
    scaled = rgb / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@cache
def _named() -> tuple[list[str], Vectors]:
    pairs = [(name, code) for name, codes in _PROTOTYPES.items() for code in codes]
    rgb = np.array([[int(code[place : place + 2], 16) for place in (1, 3, 5)] for _, code in pairs], np.float64)
    return [name for name, _ in pairs], to_lab(rgb)
