"""Pixels: reading an image, resizing, normalising, cutting into patches; the same numbers as transformers' processor.

T frames (1 for an image), H and W pixels, P patches, X numbers of a patch
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

Source = str | Path | bytes | Image.Image

HALF = 127.5
"""Mean and standard deviation of the normalisation, in grey levels: 0 becomes -1 and 255 becomes 1."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]


def read_image(source: Source) -> Tensor:
    """Decode an image, upright by its EXIF orientation, in RGB.

    Args:
        source: A file, its bytes, or a PIL image.

    Returns:
        uint8 (1, 3, H, W).

    Raises:
        ValueError: It cannot be read.
    """
    with _opened(source) as image:
        return _tensor(image)


def image_size(source: Source) -> tuple[int, int]:
    """Height and width, upright, out of the header: pixels are not decoded.

    Raises:
        ValueError: It cannot be read.
    """
    with _opened(source) as image:
        return (image.width, image.height) if _turn(image) in _SIDEWAYS else (image.height, image.width)


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    name = source if isinstance(source, str | Path) else "image"
    if not isinstance(source, str | Path | bytes | Image.Image):
        raise ValueError(f"an image given as {type(source).__name__}: give a file, its bytes, or a PIL image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow mends what it can, and says so
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                yield source
                return
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                yield image
    except Exception as error:  # decoders of hostile bytes fail in every way there is
        unknown = isinstance(error, UnidentifiedImageError)  # which tells where in memory the bytes are
        reason = "no known format" if unknown else " ".join(str(error).split())
        raise ValueError(f"cannot read {name}: {reason}; give a whole JPEG, PNG or WebP file") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings it upright, by its header; what is damaged says nothing, as viewers take it."""
    if image.format == "TIFF":
        return None  # Pillow turns those itself, size first
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # parsers of hostile bytes fail in every way there is
        return None


def _tensor(image: Image.Image) -> Tensor:
    turn = _turn(image)  # before pixels are decoded, as in `image_size`: behind them a PNG may say otherwise
    flat = image.convert("RGB")
    # A copy: arrays of PIL may not be written to.
    pixels = np.array(flat if turn is None else flat.transpose(turn))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def frames_tensor(frames: Any) -> Tensor:
    """Frames given as PIL images, or an array (T, H, W, 3), or a tensor (T, 3, H, W), as uint8 (T, 3, H, W).

    Raises:
        ValueError: None, or not of one size, or not uint8 in three colours.
    """
    if isinstance(frames, list | tuple) and frames and all(isinstance(frame, Image.Image) for frame in frames):
        read = [read_image(frame) for frame in frames]
        if len({frame.shape for frame in read}) > 1:
            raise ValueError("frames of several sizes in one clip: resize them to one, or give them as images")
        return torch.cat(read)
    if isinstance(frames, np.ndarray) and frames.ndim == 4:
        frames = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if not isinstance(frames, Tensor) or frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
        raise ValueError("a clip's frames must be PIL images, an array (T, H, W, 3) or a tensor (T, 3, H, W), uint8")
    if not len(frames):
        raise ValueError("a clip without frames: give at least one")
    return frames


def resize(frames_T3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing, uint8 in and out: torchvision's `resize`, which transformers uses."""
    if tuple(frames_T3HW.shape[-2:]) == size:
        return frames_T3HW
    return F.interpolate(frames_T3HW, size, mode="bicubic", antialias=True, align_corners=False)


def patchify(frames_T3HW: Tensor, side: int, merge: int) -> Tensor:
    """Normalised patches (P, X), frame by frame and block by block; X = 3 * side * side, colour by colour.

    Args:
        frames_T3HW: uint8, its sides multiples of side * merge.
        side: Of a patch, pixels.
        merge: Side of a block, patches.
    """
    normal = frames_T3HW.to(torch.float32).sub_(HALF).div_(HALF)
    t, c, h, w = normal.shape
    blocks = normal.view(t, c, h // (side * merge), merge, side, w // (side * merge), merge, side)
    return blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, c * side * side)
