"""Convert decoded frames of a film to upright RGB arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.images import flatten

Frame = npt.NDArray[np.uint8]


def scaled_size(height: int, width: int, side: int | None) -> tuple[int, int]:
    """Return height and width of a picture whose longer side is scaled down to at most `side`; None: as it is."""
    longer = max(height, width)
    if side is None or longer <= side:
        return height, width
    return max(1, round(height * side / longer)), max(1, round(width * side / longer))


class FrameConverter:
    """Converts frames of one film, one after another, to uint8 (H, W, 3): upright, transparency on white, RGB.

    Colour conversion and scaling are one step of FFmpeg's scaler (bilinear; when it scales down, its filter covers all
    pixels), so no full-size RGB picture is made.
    """

    def __init__(self, quarters: int, size: tuple[int, int] | None = None) -> None:
        """Set up.

        Args:
            quarters: Quarter turns counter-clockwise that turn a frame upright.
            size: Height and width of the upright result; None: those of each frame.
        """
        from av.video.reformatter import VideoReformatter

        self._quarters = quarters
        self._size = size if size is None or quarters % 2 == 0 else (size[1], size[0])
        self._reformatter = VideoReformatter()  # one for all frames: it keeps its scaler

    def __call__(self, frame: Any) -> Frame:
        height, width = self._size or (frame.height, frame.width)
        if any(component.is_alpha for component in frame.format.components):
            converted = self._reformatter.reformat(frame, width, height, format="rgba")
            pixels = np.asarray(flatten(Image.fromarray(converted.to_ndarray())))
        else:
            pixels = self._reformatter.reformat(frame, width, height, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self._quarters))


def scale_picture(pixels: Frame, side: int | None) -> Frame:
    """Scale an RGB picture (H, W, 3) down to a longer side of at most `side`, as Pillow's bilinear filter does."""
    size = scaled_size(pixels.shape[0], pixels.shape[1], side)
    if size == pixels.shape[:2]:
        return pixels
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
