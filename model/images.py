"""Read and resize images, cut them into patches and normalise these. The numbers equal those of transformers.

T frames (1 for an image), H and W pixels, P patches, X values of a patch
"""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from core.errors import BadSampleError
from core.image_header import BadImageError, read_header
from core.images import decode, flatten, turns_sideways

Source = str | Path | bytes | Image.Image

HALF = 127.5
"""Mean and standard deviation of the normalisation, in grey levels: 0 becomes -1 and 255 becomes 1."""


def read_image(source: Source) -> Tensor:
    """Decode an image as the pipeline's stages do (core/images.py): upright, transparency on white, RGB.

    Args:
        source: A file, its bytes, or a PIL image.

    Returns:
        uint8 (1, 3, H, W).

    Raises:
        BadSampleError: It cannot be read.
    """
    with _telling(source):
        image = flatten(source) if isinstance(source, Image.Image) else decode(_encoded(source))
    return with_channels_last(np.array(image))  # a copy: PIL's arrays are read-only


def with_channels_last(frame_HW3: npt.NDArray[np.uint8]) -> Tensor:
    """Return the frame as a tensor (1, 3, H, W) in torch's memory format `channels_last`, without a copy.

    So torch resizes it to a result in the same format, in half of the time, and the result is cut faster too. With
    `permute(2, 0, 1)[None]` the stride of the first dimension would be another, and torch would not see the format.
    """
    return torch.from_numpy(frame_HW3)[None].permute(0, 3, 1, 2)


def image_size(source: Source) -> tuple[int, int]:
    """Return height and width of the upright image, in pixels, from its header. Pixels are not decoded.

    Raises:
        BadSampleError: It cannot be read.
    """
    with _telling(source):
        if isinstance(source, Image.Image):
            return (source.width, source.height) if turns_sideways(source) else (source.height, source.width)
        with io.BytesIO(source) if isinstance(source, bytes) else _opened(source) as file:
            header = read_header(file)
        if header.bomb:
            raise BadImageError(header.bomb)
    return header.height, header.width


def _encoded(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    with _opened(source) as file:
        return file.read()


def _opened(path: str | Path) -> BinaryIO:
    if "\0" in str(path):
        raise BadImageError("no path: it has a NUL in it")
    if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe could block forever, a device is endless
        raise BadImageError("not a file")
    return open(path, "rb")


@contextmanager
def _telling(source: Source) -> Iterator[None]:
    """Turn errors into a BadSampleError that names the source and says what to do."""
    if not isinstance(source, str | Path | bytes | Image.Image):
        raise BadSampleError(f"an image given as {type(source).__name__}: give a file, its bytes, or a PIL image")
    name = source if isinstance(source, str | Path) else "image"
    try:
        yield
    except (OSError, BadSampleError) as error:
        reason = " ".join(str(error).split())
        raise BadSampleError(f"cannot read {name}: {reason}; give a whole JPEG, PNG or WebP file") from error


def frames_tensor(frames: object) -> Tensor:
    """Convert frames to uint8 (T, 3, H, W), from images, an array (T, H, W, 3) or a tensor (T, 3, H, W).

    Args:
        frames: Images are PIL's, or encoded bytes.

    Raises:
        BadSampleError: There are no frames, their sizes differ, or they are not uint8 with three channels.
    """
    if isinstance(frames, list | tuple) and frames and all(isinstance(frame, Image.Image | bytes) for frame in frames):
        read = [read_image(frame) for frame in frames]
        if len({frame.shape for frame in read}) > 1:
            raise BadSampleError("frames of several sizes in one clip: resize them to one, or give them as images")
        return torch.cat(read)
    if isinstance(frames, np.ndarray) and frames.ndim == 4:
        frames = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if not isinstance(frames, Tensor) or frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
        raise BadSampleError(
            "a clip's frames must be PIL images, an array (T, H, W, 3) or a tensor (T, 3, H, W), uint8"
        )
    if not len(frames):
        raise BadSampleError("a clip without frames: give at least one")
    return frames


def resize(frames_T3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 frames to `size` (height, width): bicubic, antialiased, like torchvision's in transformers."""
    if tuple(frames_T3HW.shape[-2:]) == size:
        return frames_T3HW
    return F.interpolate(frames_T3HW, size, mode="bicubic", antialias=True, align_corners=False)


def patchify(frames_T3HW: Tensor, side: int, merge: int) -> Tensor:
    """Cut frames into patches, uint8 (P, X), frame by frame and block by block. X = 3 * side * side, channel first.

    Args:
        frames_T3HW: uint8; height and width are multiples of side * merge.
        side: Side of a patch, in pixels.
        merge: Side of a merged block, in patches.
    """
    t, c, h, w = frames_T3HW.shape
    blocks = frames_T3HW.view(t, c, h // (side * merge), merge, side, w // (side * merge), merge, side)
    # numpy copies bytes in this order in half of torch's time.
    ordered = np.ascontiguousarray(blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).numpy())
    return torch.from_numpy(ordered).view(-1, c * side * side)


def unpatchify(patches_PX: Tensor, grid: tuple[int, int, int], merge: int) -> Tensor:
    """Return the frames that `patchify` cut into patches, (T, H, W, 3).

    Args:
        patches_PX: Patches, as `patchify` returns them.
        grid: Number of frames, and rows and columns of patches per frame.
        merge: Side of a merged block, in patches.
    """
    t, h, w = grid
    side = math.isqrt(patches_PX.shape[-1] // 3)
    blocks = patches_PX.view(t, h // merge, w // merge, merge, merge, 3, side, side)
    return blocks.permute(0, 1, 3, 6, 2, 4, 7, 5).reshape(t, h * side, w * side, 3)


def normalise(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32, -1 to 1, with the same bits on every device. Other dtypes are returned unchanged.

    The divisor is a tensor: by a plain number, CUDA multiplies with its reciprocal, which changes last bits.
    """
    if pixels.dtype != torch.uint8:
        return pixels
    normal = pixels.to(torch.float32)
    return normal.sub_(HALF).div_(normal.new_full((), HALF))
