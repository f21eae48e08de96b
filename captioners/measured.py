"""What `describe` says of an image, as numbers: colours, light, shape, and where its detail lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from captioners.colours import colours

MEASURED_ON = 128
"""Pixels of the square that light and detail are measured on."""


class Measured(NamedTuple):
    """What a description is made of.

    Attributes:
        labels, probabilities: Classes, the most probable first.
        colours, shares: Names and areas, the largest first.
        brightness, spread: Mean and standard deviation of luma, 0 to 1.
        colourfulness: Hasler and Süsstrunk 2003, 0 to about 110.
        shape: Width / height.
        detail: Share of the gradient in each of 3 × 3 fields, row by row.
    """

    labels: Sequence[str]
    probabilities: Sequence[float]
    colours: Sequence[str]
    shares: Sequence[float]
    brightness: float
    spread: float
    colourfulness: float
    shape: float
    detail: npt.NDArray[np.float64]


def measure(image: Image.Image, labels: Sequence[str], probabilities: Sequence[float]) -> Measured:
    """Everything that a description says of an RGB image."""
    small = image.resize((MEASURED_ON, MEASURED_ON), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"), np.float64) / 255
    names, shares = colours(image)
    return Measured(
        labels,
        probabilities,
        names,
        shares,
        float(luma.mean()),
        float(luma.std()),
        _colourfulness(np.asarray(small, np.float64)),
        image.width / image.height,
        _detail(luma),
    )


def _colourfulness(rgb: npt.NDArray[np.float64]) -> float:
    """Hasler and Süsstrunk 2003, equation 7, of (rows, columns, 3), 0 to 255."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def _detail(luma: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the gradient's magnitude in each of 3 × 3 fields; evenly where there is none."""
    magnitude = np.hypot(*np.gradient(luma))
    fields = [np.array_split(band, 3, axis=1) for band in np.array_split(magnitude, 3, axis=0)]
    sums = np.array([field.sum() for band in fields for field in band])
    total = float(sums.sum())
    return sums / total if total > 1e-6 else np.full(9, 1 / 9)
