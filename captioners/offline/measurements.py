"""The measurements behind the captions of `describe`: classes, colours, light, shape, and where the detail is."""

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
"""Side in pixels of the square copy that everything except the shape is measured on."""

_NOTICED = 0.999  # quantile of the pixels: a spot of about 16 pixels makes an image coloured
_STEP = 0.004  # luma, about one grey level per pixel; an image with less is flat

Values = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """The measurements of one image.

    Attributes:
        labels, probabilities: Classes, most probable first, each name once.
        colours, shares: Colour names and their shares of the area, largest first.
        brightness, spread: Mean (0 to 1) and standard deviation (0 to 0.5) of luma.
        evenness: Standard deviation of the mean luma of 3 × 3 fields, 0 to 0.5; 0: all fields are equally bright.
        colourfulness: Hasler and Süsstrunk 2003, 0 to about 110.
        tint: Largest minus smallest channel, as the 99.9 % quantile over the pixels, 0 to 255; 0: grey.
        shape: Width / height.
        detail: Share of the gradient in each of 3 × 3 fields, row by row; None if the image is flat.
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
    """Measure an RGB image; `labels` and `probabilities` come from `conse`."""
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
    """Return labels with their probabilities, each name once: two classes may share a name (crane: bird, machine)."""
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
    """Return the means of 3 × 3 fields, row by row, (9,)."""
    bands = np.array_split(values, 3, axis=0)
    return np.array([field.mean() for band in bands for field in np.array_split(band, 3, axis=1)])
