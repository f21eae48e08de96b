"""Photographic quality without a model or a reference image: blur, contrast, colour, exposure, compression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
import pyarrow as pa
from PIL import ImageChops
from PIL.Image import Image, Resampling

from core.photometry import colourfulness
from core.stages import ImageFacts, ImageStage
from manifests.schemas import column

Grey = npt.NDArray[np.int16]

_PIXELS = 640 * 480  # an image is scaled down to so many for all measures except blockiness
_WINDOW = 640  # pixels, width and height of the centre that blockiness is measured on
_BLOCK = 8  # pixels, width and height of a JPEG block
_LOW_PASS = 9  # pixels, the length of Crete's filter
_SPREAD = 0.2  # standard deviation of Mertens' curve
_ENOUGH = 0.2  # contrast; the median of the demo's photographs is 0.22


class Quality(ImageStage):
    """Absence of the classical defects of photographs: blur, low contrast, bad exposure, JPEG blocks.

    `quality` is the geometric mean of four numbers between 0 and 1 with equal weights: sharpness, contrast / 0.2
    (at most 1: the contrast of ordinary photographs is enough), exposure, and 1 - blockiness. So one defect is enough
    for a low value. Colourfulness does not count: a black and white image is not defective.

    It does not measure content or beauty. Noise counts as sharpness; a white page or a night sky counts as badly
    exposed. Blocks are detected only at the scale at which JPEG made them.

    Sharpness, contrast, colour and exposure are measured on the image scaled down to at most 307,200 pixels (640 ×
    480), so that images of different sizes are comparable. Scaling would remove blocks, so they are measured on the
    centre 640 × 640 pixels.
    """

    name: ClassVar = "quality"
    writes: ClassVar = pa.schema(
        [
            column(
                "quality", pa.float32(), "Geometric mean of sharpness, contrast / 0.2, exposure, 1 - blockiness", 0, 1
            ),
            column("sharpness", pa.float32(), "1 - blur metric (Crete et al. 2007); 0: all blurred or blank", 0, 1),
            column("contrast", pa.float32(), "RMS contrast (Peli 1990): standard deviation of luma (0 to 1)", 0, 0.5),
            column("colourfulness", pa.float32(), "M of Hasler & Süsstrunk (2003); 0: grey, 109: vivid", 0, 298),
            column("exposure", pa.float32(), "Mean well-exposedness (Mertens 2007) × share of unclipped pixels", 0, 1),
            column("blockiness", pa.float32(), "Excess of steps at JPEG block borders over other steps, 0 to 1", 0, 1),
        ]
    )

    def load(self) -> _Meter:
        return _Meter()


class Measures(NamedTuple):
    """The columns of one image, in the order of `Quality.writes`."""

    quality: float
    sharpness: float
    contrast: float
    colourfulness: float
    exposure: float
    blockiness: float


class _Meter(ImageFacts):
    """`ImageFacts` of `quality`; `prepare` does all the work, in threads."""

    side = None  # blockiness needs every pixel
    has_model = False

    def __init__(self) -> None:
        self.provenance = {"pillow": PIL.__version__, "numpy": np.__version__}

    def prepare(self, image: Image) -> Measures:
        """Measure an RGB image."""
        small = scaled(image)
        luma = grey(small)
        clear, spread, seen = sharpness(luma), contrast(luma), exposure(small)
        blocks = blockiness(grey(middle(image)))
        combined = (clear * min(1.0, spread / _ENOUGH) * seen * (1 - blocks)) ** (1 / 4)
        return Measures(combined, clear, spread, colourfulness(small), seen, blocks)

    def __call__(self, inputs: Sequence[Measures]) -> pa.Table:
        numbers = np.array(inputs, np.float32).reshape(-1, len(Quality.writes))
        return pa.table(list(numbers.T), schema=Quality.writes)


def scaled(image: Image) -> Image:
    """Scale an image down to at most 307,200 pixels, keeping its aspect ratio."""
    scale = (_PIXELS / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Resampling.BICUBIC, reducing_gap=2)


def middle(image: Image) -> Image:
    """Crop the centre 640 × 640 pixels; a smaller side is not cropped."""
    width, height = min(image.width, _WINDOW), min(image.height, _WINDOW)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def grey(image: Image) -> Grey:
    """Return the luma of an RGB image (ITU-R BT.601), 0 to 255, (height, width); signed, for differences."""
    return np.asarray(image.convert("L")).astype(np.int16)


def sharpness(luma: Grey) -> float:
    """Return the share of the steps between neighbours that a further blur removes, 0 to 1, in the blurrier direction.

    1 - the metric of Crete, Dolmiere, Ladret and Nicolas 2007 (The blur effect: perception and estimation with a new
    no-reference perceptual blur metric, SPIE 6492). An image that is already blurred loses little. A direction without
    steps does not count; without steps in both directions the result is 0.

    Args:
        luma: 0 to 255, (height, width).
    """
    return min((lost for lost in (_lost(luma), _lost(luma.T)) if lost is not None), default=0.0)


def contrast(luma: Grey) -> float:
    """Return the RMS contrast, 0 to 0.5: the standard deviation of luma / 255 (Peli 1990, Contrast in complex images).

    Args:
        luma: 0 to 255, (height, width).
    """
    return float(np.std(luma, dtype=np.float64)) / 255


def exposure(image: Image) -> float:
    """Return the exposure, 0 to 1: high if values are near the middle of the range and few pixels are clipped.

    Well-exposedness by Mertens, Kautz and Van Reeth 2007 (Exposure fusion, Pacific Graphics), that is
    exp(-(value - 0.5)² / (2 × 0.2²)), times the share of pixels that have no channel at 255. The paper multiplies the
    channels; this takes the mean over channels and pixels, which lowers the score of saturated colours less.

    Args:
        image: RGB.
    """
    shares = np.reshape(image.histogram(), (3, 256)).sum(axis=0) / (3 * image.width * image.height)
    well = np.exp(-((np.arange(256) / 255 - 0.5) ** 2) / (2 * _SPREAD**2))
    red, green, blue = image.split()
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    return float(shares @ well) * (1 - brightest[255] / (image.width * image.height))


def blockiness(luma: Grey) -> float:
    """Return how much the steps at the borders of 8 × 8 blocks exceed those inside, 0 to 1.

    (B - A) / (B + 1), after the blockiness B and the activity A of Wang, Sheikh and Bovik 2002 (No-reference perceptual
    quality assessment of JPEG compressed images, ICIP): the mean absolute step at borders and elsewhere, over both
    directions, in grey levels. The 1 is one grey level, so that blocks in a smooth sky count only if they are visible.
    In the paper the grid starts at the upper left corner. Images may be cropped or rotated, so here B comes from the
    one of 8 grid offsets with the largest steps, and A from the second largest: by chance, one of 8 is always largest.

    Args:
        luma: 0 to 255, (height, width).
    """
    inside, borders = np.mean([_steps(luma), _steps(luma.T)], axis=0)
    return float((borders - inside) / (borders + 1))


def _lost(luma: Grey) -> float | None:
    """Return 1 - Crete's blur metric along the rows; None if there are no steps."""
    width = luma.shape[1]
    steps = np.abs(np.diff(luma, axis=1))
    before = _LOW_PASS // 2 + 1
    # The step of a 9-pixel mean is (entering pixel - leaving pixel) / 9, so the filter itself is not computed.
    padded = np.pad(luma, ((0, 0), (before, _LOW_PASS // 2)), mode="edge")
    blurred = np.abs(padded[:, _LOW_PASS + 1 :][:, : width - 1] - padded[:, 1:][:, : width - 1])
    total = int(steps.sum(dtype=np.int64))
    lost = int(np.maximum(_LOW_PASS * steps - blurred, 0).sum(dtype=np.int64))
    return lost / (_LOW_PASS * total) if total else None


def _steps(luma: Grey) -> tuple[float, float]:
    """Return the mean absolute steps along the rows at the two grid offsets with the largest ones, largest last."""
    if luma.shape[1] < 2 * _BLOCK:  # too narrow for two borders
        return 0.0, 0.0
    columns = np.abs(np.diff(luma, axis=1)).mean(axis=0, dtype=np.float64)
    *_, inside, borders = sorted(float(columns[start::_BLOCK].mean()) for start in range(_BLOCK))
    return inside, borders
