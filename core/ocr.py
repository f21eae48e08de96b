"""Read text in images with RapidOCR: detection and recognition by PP-OCR, whose weights are in its wheel."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.errors import UserError
from core.pretrained import package_folder, require, sha256

SIDE = 1024
"""Pixels that the shorter side should have, so that small text is readable."""

PACKAGES = ("rapidocr", "onnxruntime")
LICENCE = "Apache-2.0"
"""Licence of the weights, by rapidocr's MODEL_LICENSES.md."""

_WEIGHTS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
_LONGEST = 2000  # pixels; RapidOCR scales a longer side down to this
_SLIM = 8  # longer side / shorter side; beyond it, RapidOCR would scale the shorter side up and fill the memory
_PADDED = 4  # longer side / shorter side of a slim picture after padding


class Line(NamedTuple):
    """A line of text in an image.

    Attributes:
        text: The text, with single spaces.
        box: Left, top, right and bottom of the upright rectangle around it, in pixels of the image.
        confidence: Of the recognition, 0.5 to 1. RapidOCR leaves out less certain lines.
    """

    text: str
    box: tuple[float, float, float, float]
    confidence: float


class Reader:
    """An OCR engine. It must not be used by several threads at the same time."""

    def __init__(self, what: str) -> None:
        """Load the engine for the stage `what`.

        Raises:
            UserError: A package is not installed, or its weights are missing.
        """
        for package in PACKAGES:
            require(package, "ocr", what)
        folder = package_folder("rapidocr") / "models"
        weights = {step: folder / name for step, name in _WEIGHTS.items()}
        for file in weights.values():
            if not file.is_file():  # RapidOCR would download it
                raise UserError(f"{what}: {file} is missing: install rapidocr 3.10 again, its wheel has this file")
        from rapidocr import RapidOCR

        # Ray sets OMP_NUM_THREADS to the CPUs of the actor; ONNX Runtime would take every core it sees.
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        params: dict[str, Any] = {f"{step}.model_path": str(file) for step, file in weights.items()}
        params |= {"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": threads}
        self._engine: Any = RapidOCR(params=params)
        self.provenance = {
            "weights": sha256(weights.values()),
            "dtype": "float32",
            **{package: version(package) for package in PACKAGES},
        }

    def lines(self, image: Image.Image) -> list[Line]:
        """Return the lines of text in an RGB image, in RapidOCR's order: top to bottom, without regard to columns."""
        pixels, scale, padding = _readable(image)
        result = self._engine(pixels)
        if result.txts is None:
            return []
        found = zip(result.txts, result.boxes, result.scores, strict=True)
        return [
            Line(" ".join(text.split()), _box(corners, scale, padding, image.size), float(score))
            for text, corners, score in found
            if text.strip()
        ]


def _readable(image: Image.Image) -> tuple[npt.NDArray[np.uint8], float, tuple[int, int]]:
    """Return the pixels for RapidOCR: BGR as in OpenCV.

    A slim picture is scaled down to 2000 pixels, and padded at its longer sides by repeating its edges, without which a
    border would hide the text beside it.

    Returns:
        The pixels; how many pixels of the image one of them is; what they have left and above of the image.
    """
    if max(image.size) <= _SLIM * min(image.size):
        return np.ascontiguousarray(np.asarray(image)[:, :, ::-1]), 1.0, (0, 0)
    scale = max(1.0, max(image.size) / _LONGEST)
    width, height = (max(1, round(side / scale)) for side in image.size)
    least = -(-max(width, height) // _PADDED)
    missing = max(0, least - width), max(0, least - height)
    left, top = missing[0] // 2, missing[1] // 2
    small = image.resize((width, height), Image.Resampling.BOX) if scale > 1 else image
    around = ((top, missing[1] - top), (left, missing[0] - left), (0, 0))
    return np.pad(np.asarray(small)[:, :, ::-1], around, mode="edge"), scale, (left, top)


def _box(
    corners: Any, scale: float, padding: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the upright rectangle around four corners, within the image, in pixels of the image."""
    ends = (np.array([np.min(corners, axis=0), np.max(corners, axis=0)], np.float64) - padding) * scale
    (left, top), (right, bottom) = np.clip(ends, 0, size).tolist()
    return left, top, right, bottom
