"""Frames of a video as tensors, each resized as it is decoded.

A long film takes no more memory than the frames that the model will see.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core import videos
from core.videos import Frame, Video
from model.images import resize


def decode(video: Video, size: tuple[int, int]) -> tuple[Tensor, tuple[float, ...]]:
    """Take the frames that `core.videos.probe` has planned, upright and resized.

    Returns:
        uint8 (T, 3, *size), and the time of each in seconds: those of `video`, without what the file lacks at its end.

    Raises:
        BadSampleError: The file breaks off.
    """

    def resized(frame: Frame) -> Tensor:
        return resize(torch.from_numpy(frame).permute(2, 0, 1)[None], size)

    taken, times = videos.decode(video, resized)
    return torch.cat(taken), times
