"""Measures of light and colour that several packages use."""

from __future__ import annotations

import numpy as np
from PIL.Image import Image


def colourfulness(image: Image) -> float:
    """Return the colourfulness of an image: the fast metric of Hasler and Süsstrunk on sRGB.

    (Measuring colourfulness in natural images, SPIE 5007, 2003.) People rated 15 as slightly, 33 moderately, 45
    averagely, 59 quite, 82 highly and 109 extremely colourful. All values are from 0 to below 298.

    Args:
        image: An RGB image.
    """
    red, green, blue = np.moveaxis(np.asarray(image).astype(np.int16), 2, 0)
    red_green, yellow_blue = red - green, (red + green - 2 * blue) / 2
    spread = np.hypot(np.std(red_green, dtype=np.float64), np.std(yellow_blue))
    mean = np.hypot(np.mean(red_green, dtype=np.float64), np.mean(yellow_blue))
    return float(spread + 0.3 * mean)
