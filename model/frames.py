"""Decode the frames of a video into tensors, and resize each at once.

So a long video needs no more memory than the frames that the model will read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core import videos
from core.videos import Frame, Video
from model.images import resize, with_channels_last


def decode(video: Video, size: tuple[int, int]) -> tuple[Tensor, tuple[float, ...]]:
    """Decode the frames that `core.videos.probe` has planned, upright and resized.

    Args:
        video: The planned video.
        size: Height and width, in pixels.

    Returns:
        uint8 (T, 3, *size), and the time of each frame in seconds: the planned times, without those that the file lacks
        at its end.

    Raises:
        BadSampleError: The file is truncated.
    """

    def resized(frame: Frame) -> Tensor:
        return resize(with_channels_last(frame), size)

    taken, times = videos.decode(video, resized)
    return torch.cat(taken), times
