"""What `describe` says of an image, as numbers: classes, colours, light, shape, and where its detail lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from captioners.offline.colours import colours
from core.photometry import colourfulness

MEASURED_ON = 128
"""Pixels of the square that all of it is measured on."""

_NOTICED = 0.999  # quantile of the pixels: a spot of 16 is enough to be coloured
_STEP = 0.004  # luma, some grey level per pixel: what has less is flat

Values = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """What a description is made of.

    Attributes:
        labels, probabilities: Classes, the most probable first, each name once.
        colours, shares: Names and areas, the largest first.
        brightness, spread: Mean and standard deviation of luma, 0 to 1.
        evenness: Standard deviation of the mean luma of 3 × 3 fields, 0 to 0.5; 0: as bright everywhere.
        colourfulness: Hasler and Süsstrunk 2003, 0 to about 110.
        tint: Largest less smallest channel of its most coloured pixels (99.9 % have less), 0 to 255; 0: grey.
        shape: Width / height.
        detail: Share of the gradient in each of 3 × 3 fields, row by row; None where there is next to none.
    """

    labels: Sequence[str]
    probabilities: Sequence[float]
    colours: Sequence[str]
    shares: Sequence[float]
    brightness: float
    spread: float
    evenness: float
    colourfulness: float
    tint: float
    shape: float
    detail: Values | None


def measure(
    image: Image.Image, labels: Sequence[str | None] | None, probabilities: Sequence[float | None] | None
) -> Measured:
    """Everything that a description says of an RGB image."""
    small = image.resize((MEASURED_ON, MEASURED_ON), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"), np.float64) / 255
    pixels = np.asarray(small)
    ranked = _ranked(labels or (), probabilities or ())
    names, shares = colours(small)
    return Measured(
        list(ranked),
        list(ranked.values()),
        names,
        shares,
        float(luma.mean()),
        float(luma.std()),
        float(_fields(luma).std()),
        colourfulness(small),
        float(np.quantile(pixels.max(axis=2) - pixels.min(axis=2), _NOTICED)),
        image.width / image.height,
        _detail(luma),
    )


def _ranked(labels: Sequence[str | None], probabilities: Sequence[float | None]) -> dict[str, float]:
    """Labels with a probability. Two classes may share their first lemma, as the bird and the machine called crane."""
    best: dict[str, float] = {}
    for label, probability in zip(labels, probabilities, strict=False):
        if label and probability is not None and math.isfinite(probability):
            best.setdefault(label, probability)
    return best


def _detail(luma: Values) -> Values | None:
    magnitude = np.hypot(*np.gradient(luma))
    means = _fields(magnitude)
    return means / means.sum() if magnitude.mean() > _STEP else None


def _fields(values: Values) -> Values:
    """The means of 3 × 3 fields, row by row."""
    bands = np.array_split(values, 3, axis=0)
    return np.array([field.mean() for band in bands for field in np.array_split(band, 3, axis=1)])
