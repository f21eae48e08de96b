"""Convert decoded frames of a film to upright RGB arrays, and scale them down."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.images import flatten

Frame = npt.NDArray[np.uint8]

_SCALED_FIRST = frozenset({"yuv420p", "yuvj420p"})
"""Pixel formats that are scaled as they are, then converted: both steps have fast code, the single step has none."""


def scaled_size(height: int, width: int, side: int | None) -> tuple[int, int]:
    """Return height and width of a picture whose longer side is scaled down to at most `side`; None: as it is.

    A scaled picture has even sides, which are converted faster.
    """
    longer = max(height, width)
    if side is None or longer <= side:
        return height, width
    return _even(height * side / longer), _even(width * side / longer)


def _even(length: float) -> int:
    return max(2, 2 * int(length / 2 + 0.5))


class FrameConverter:
    """Converts frames of one film, one after another, to uint8 (H, W, 3): upright, transparency on white, RGB.

    FFmpeg's scaler converts colours, and scales by the mean over the pixels that fall on one (`AREA`). No full-size RGB
    picture is made of a frame that is scaled down.
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
        self._scale, self._convert = VideoReformatter(), VideoReformatter()  # they keep their tables between frames

    def __call__(self, frame: Any) -> Frame:
        height, width = self._size or (frame.height, frame.width)
        is_scaled = (frame.height, frame.width) != (height, width)
        if is_scaled and frame.format.name in _SCALED_FIRST:
            frame = self._scale.reformat(frame, width, height, interpolation="AREA")
        if any(component.is_alpha for component in frame.format.components):
            pixels = self._pixels(frame, width, height, "rgba")
            pixels = np.asarray(flatten(Image.fromarray(pixels)))
        else:
            pixels = self._pixels(frame, width, height, "rgb24")
        return np.ascontiguousarray(np.rot90(pixels, self._quarters))

    def _pixels(self, frame: Any, width: int, height: int, format_: str) -> Frame:
        # Frames that keep their size are converted with FFmpeg's default, as everywhere else.
        how = None if (frame.height, frame.width) == (height, width) else "AREA"
        converted = self._convert.reformat(frame, width, height, format=format_, interpolation=how)
        return np.asarray(converted.to_ndarray(), np.uint8)


def scale_picture(pixels: Frame, side: int | None) -> Frame:
    """Scale an RGB picture (H, W, 3) down to a longer side of at most `side`, as Pillow's bilinear filter does."""
    size = scaled_size(pixels.shape[0], pixels.shape[1], side)
    if size == pixels.shape[:2]:
        return pixels
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
