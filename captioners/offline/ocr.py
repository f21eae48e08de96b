"""Read text in images with RapidOCR: detection and recognition by PP-OCR, whose weights are in its wheel."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from core.pretrained import require

SIDE = 1024
"""Pixels that the shorter side should have, so that small text is readable."""

_SURE = 0.7  # lines with a lower confidence are left out; in photographs most of them are not text


class Reader:
    """An OCR engine. It must not be used by several threads at the same time."""

    def __init__(self, what: str) -> None:
        """Load the engine for the stage `what`.

        Raises:
            UserError: A package is not installed.
        """
        for package in ("rapidocr", "onnxruntime"):
            require(package, "ocr", what)
        from rapidocr import RapidOCR

        self._engine: Any = RapidOCR(params={"Global.log_level": "error"})
        self.provenance = {"rapidocr": version("rapidocr"), "onnxruntime": version("onnxruntime")}

    def lines(self, image: Image.Image) -> list[str]:
        """Return the lines of text in an RGB image, in RapidOCR's order, which is top to bottom."""
        result = self._engine(np.asarray(image)[:, :, ::-1])  # BGR, as in OpenCV
        pairs = zip(result.txts or (), result.scores or (), strict=True)
        return [" ".join(text.split()) for text, score in pairs if score >= _SURE and text.strip()]
