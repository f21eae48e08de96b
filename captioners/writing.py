"""Writing on an image, read by RapidOCR: PP-OCRv4's detection and recognition, whose weights its wheel carries."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from filters.weights import require

SIDE = 1024
"""Pixels that the shorter side should have: small writing needs them."""

_SURE = 0.7  # a line that is less sure is left out; on photographs most of those are no writing


class Reader:
    """An OCR engine; not for several threads at once."""

    def __init__(self, what: str) -> None:
        """Load it for the stage called `what`; a ValueError if it is not installed."""
        require("rapidocr_onnxruntime", "ocr", what)
        from rapidocr_onnxruntime import RapidOCR

        self._engine: Any = RapidOCR()
        self.made_by = {"rapidocr-onnxruntime": version("rapidocr-onnxruntime")}

    def lines(self, image: Image.Image) -> list[str]:
        """The lines of writing on an RGB image, from top to bottom as they were found; none where there is none."""
        found, _ = self._engine(np.asarray(image)[:, :, ::-1])  # as OpenCV has it: blue first
        return [" ".join(str(text).split()) for _, text, score in found or () if float(score) >= _SURE and text.strip()]
