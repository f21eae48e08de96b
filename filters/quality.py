"""Photographic quality without a model and without a reference: blur, contrast, colour, exposure, compression."""

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

_PIXELS = 640 * 480  # what an image is scaled down to for everything but the blocks
_WINDOW = 640  # pixels, width and height of the middle that is searched for blocks
_BLOCK = 8  # pixels, JPEG's
_LOW_PASS = 9  # pixels, the length of Crete's filter
_SPREAD = 0.2  # of Mertens' curve
_ENOUGH = 0.2  # contrast; the median of the photographs of the demo is 0.22


class Quality(ImageStage):
    """How free of the classical defects of photographs an image is: blur, flatness, bad exposure, JPEG's blocks.

    `quality` is the geometric mean of four numbers between 0 and 1, all of the same weight: sharpness, contrast / 0.2
    (at most 1: what ordinary photographs have is enough), exposure, and 1 - blockiness. So one defect is enough to
    bring it down. Colourfulness does not count: to be black and white is no defect.

    It knows nothing of what is on the image, or of beauty. Noise looks like sharpness to it; a white page or a night
    sky, badly exposed. Blocks are seen only at the scale at which JPEG made them.

    Sharpness, contrast, colour and exposure are those of the image scaled down to at most 307,200 pixels (640 × 480),
    which makes images of different sizes comparable. Blocks, which scaling would wipe out, are looked for in the middle
    640 × 640 pixels.
    """

    name: ClassVar = "quality"
    writes: ClassVar = pa.schema(
        [
            column(
                "quality", pa.float32(), "Geometric mean of sharpness, contrast / 0.2, exposure, 1 - blockiness", 0, 1
            ),
            column("sharpness", pa.float32(), "1 - the blur metric of Crete et al. (2007); 0: nothing to see", 0, 1),
            column(
                "contrast",
                pa.float32(),
                "RMS contrast (Peli 1990): standard deviation of luma on a scale of 0 to 1",
                0,
                0.5,
            ),
            column("colourfulness", pa.float32(), "M of Hasler & Süsstrunk (2003); 0: grey, 109: extremely", 0, 298),
            column("exposure", pa.float32(), "Mean well-exposedness (Mertens 2007) × share of unclipped pixels", 0, 1),
            column("blockiness", pa.float32(), "Steps at JPEG's block borders above those elsewhere, relative", 0, 1),
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
    """`Quality` at work; all of it happens in the threads."""

    side = None  # the blocks need every pixel

    def __init__(self) -> None:
        self.provenance = {"pillow": PIL.__version__, "numpy": np.__version__}

    def prepare(self, image: Image) -> Measures:
        """An RGB image to its facts."""
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
    """Scaled down to at most 307,200 pixels, its aspect ratio kept."""
    scale = (_PIXELS / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Resampling.BICUBIC, reducing_gap=2)


def middle(image: Image) -> Image:
    """The middle 640 × 640 pixels, or what there is of them."""
    width, height = min(image.width, _WINDOW), min(image.height, _WINDOW)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def grey(image: Image) -> Grey:
    """The luma of an RGB image (ITU-R BT.601), 0 to 255, (height, width), with a sign so that it can be subtracted."""
    return np.asarray(image.convert("L")).astype(np.int16)


def sharpness(luma: Grey) -> float:
    """How much of the steps between neighbours a further blur would take away, 0 to 1, in the blurrier direction.

    1 - the metric of Crete, Dolmiere, Ladret and Nicolas 2007 (The blur effect: perception and estimation with a new
    no-reference perceptual blur metric, SPIE 6492). What is blurred already loses little. A direction without any step
    does not count; without any at all, it is 0.

    Args:
        luma: 0 to 255, (height, width).
    """
    return min((lost for lost in (_lost(luma), _lost(luma.T)) if lost is not None), default=0.0)


def contrast(luma: Grey) -> float:
    """RMS contrast, 0 to 0.5: the standard deviation of luma between 0 and 1 (Peli 1990, Contrast in complex images).

    Args:
        luma: 0 to 255, (height, width).
    """
    return float(np.std(luma, dtype=np.float64)) / 255


def exposure(image: Image) -> float:
    """How near to the middle the samples are, and how few pixels are burnt out, 0 to 1.

    Well-exposedness by Mertens, Kautz and Van Reeth 2007 (Exposure fusion, Pacific Graphics), that is
    exp(-(value - 0.5)² / (2 × 0.2²)), times the share of the pixels of which no channel is 255. They multiply the
    channels; this takes the mean over channels and pixels, which is milder on saturated colours.

    Args:
        image: RGB.
    """
    shares = np.reshape(image.histogram(), (3, 256)).sum(axis=0) / (3 * image.width * image.height)
    well = np.exp(-((np.arange(256) / 255 - 0.5) ** 2) / (2 * _SPREAD**2))
    red, green, blue = image.split()
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    return float(shares @ well) * (1 - brightest[255] / (image.width * image.height))


def blockiness(luma: Grey) -> float:
    """By how much steps at the borders of 8 × 8 blocks exceed those inside, 0 to 1.

    (B - A) / (B + 1), after the blockiness B and the activity A of Wang, Sheikh and Bovik 2002 (No-reference perceptual
    quality assessment of JPEG compressed images, ICIP): the mean absolute step at borders and elsewhere, over both
    directions, in grey levels. The 1 is a grey level, so that blocks in a smooth sky count only as far as one can see
    them. They take the grid from the upper left corner. Images get cropped and turned, so here it is the one of the 8
    places with the largest steps, and A is that of the place that comes next: chance alone makes one of 8 the largest.

    Args:
        luma: 0 to 255, (height, width).
    """
    inside, borders = np.mean([_steps(luma), _steps(luma.T)], axis=0)
    return float((borders - inside) / (borders + 1))


def _lost(luma: Grey) -> float | None:
    """Crete's metric along the rows: 1 - blur, or None where there is no step."""
    width = luma.shape[1]
    steps = np.abs(np.diff(luma, axis=1))
    before = _LOW_PASS // 2 + 1
    # A step of the mean over 9 pixels is what enters it less what leaves it, divided by 9: the filter need not be run.
    padded = np.pad(luma, ((0, 0), (before, _LOW_PASS // 2)), mode="edge")
    blurred = np.abs(padded[:, _LOW_PASS + 1 :][:, : width - 1] - padded[:, 1:][:, : width - 1])
    total = int(steps.sum(dtype=np.int64))
    lost = int(np.maximum(_LOW_PASS * steps - blurred, 0).sum(dtype=np.int64))
    return lost / (_LOW_PASS * total) if total else None


def _steps(luma: Grey) -> tuple[float, float]:
    """Mean absolute steps along the rows at the two places of the grid where they are largest, largest last."""
    if luma.shape[1] < 2 * _BLOCK:  # one border is no grid
        return 0.0, 0.0
    columns = np.abs(np.diff(luma, axis=1)).mean(axis=0, dtype=np.float64)
    *_, inside, borders = sorted(float(columns[start::_BLOCK].mean()) for start in range(_BLOCK))
    return inside, borders
