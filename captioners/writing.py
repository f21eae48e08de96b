"""Writing on an image, read by RapidOCR: detection and recognition by PP-OCR, whose weights its wheel carries."""

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
        """Load it for the stage called `what`; a UserError if it is not installed."""
        for package in ("rapidocr", "onnxruntime"):
            require(package, "ocr", what)
        from rapidocr import RapidOCR

        self._engine: Any = RapidOCR(params={"Global.log_level": "error"})
        self.made_by = {"rapidocr": version("rapidocr"), "onnxruntime": version("onnxruntime")}

    def lines(self, image: Image.Image) -> list[str]:
        """The lines of writing on an RGB image, from top to bottom as they were found; none where there is none."""
        found = self._engine(np.asarray(image)[:, :, ::-1])  # as OpenCV has it: blue first
        told = zip(found.txts or (), found.scores or (), strict=True)
        return [" ".join(text.split()) for text, score in told if score >= _SURE and text.strip()]
