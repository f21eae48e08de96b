"""The last frames of a film that is still running: resized, encoded and pruned as they come.

P patches of a frame, X values of a patch, N merged tokens of a frame before pruning, W width of the language model
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from core.errors import BadSampleError, UserError
from model.images import frames_tensor, patchify, resize
from model.prune import Pruner
from model.sizes import Item, plan_sizes

if TYPE_CHECKING:
    from model.processor_config import ProcessorConfig
    from model.videollama3 import VideoLLaMA3

Picture = Image.Image | npt.NDArray[np.uint8]
"""A frame: a PIL image, or an array (H, W, 3)."""


_LATEST = 1e12
"""Largest time of a frame, in seconds: a clock's times fit, and their differences are exact to a millisecond."""


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """A frame, encoded.

    Attributes:
        number: Frames that came before it.
        time: Its time, in seconds.
        patches_PX: uint8, on the CPU. If the film begins later, what is kept is decided anew.
        visual_NW: All its merged tokens, projected, on the model's device.
        keep_N: Which of them are kept, bool, on the CPU.
    """

    number: int
    time: float
    patches_PX: Tensor
    visual_NW: Tensor
    keep_N: Tensor

    @property
    def kept(self) -> int:
        """Number of kept tokens."""
        return int(self.keep_N.sum())

    def kept_tokens(self) -> Tensor:
        """Return the kept tokens, (kept, W)."""
        return self.visual_NW[self.keep_N.to(self.visual_NW.device)]


class FrameWindow:
    """The last frames.

    Attributes:
        length: Most frames that are held.
        leaving: Oldest frames that leave together when one more comes.
        frames: The frames that are held.
        count: Frames that have come, those that have left included.
    """

    def __init__(self, model: VideoLLaMA3, config: ProcessorConfig, length: int, leaving: int) -> None:
        self.model, self.config, self.length, self.leaving = model, config, length, leaving
        self.frames: list[SeenFrame] = []
        self.count = 0
        self._last = -math.inf  # the last frame's time
        self._original: tuple[int, int] | None = None  # height and width of the frames as they come
        self._size = (0, 0)  # as they are encoded
        self._pruner = Pruner(config.pruning)

    @property
    def first(self) -> int:
        """Number of the first frame that is held; 0 if there is none."""
        return self.frames[0].number if self.frames else 0

    def push(self, picture: Picture, time: float) -> bool:
        """Encode the next frame. Return whether the oldest frames have left for it.

        The first frame decides the size of all, as in a film of `length` frames.

        Raises:
            BadSampleError: The picture is none, or of another size, or the time does not increase. Nothing changes.
            UserError: The window is too large for the budget of tokens.
        """
        pixels = _pixels(picture)
        self._check_time(time)
        original = pixels.shape[-2], pixels.shape[-1]
        if self._original is None:
            self._size = self._plan(*original)
            self._original = original
        elif original != self._original:
            (h, w), (height, width) = original, self._original
            raise BadSampleError(f"a frame of {w} x {h} pixels after some of {width} x {height}: resize it to these")
        patches_PX = patchify(resize(pixels, self._size), self.config.patch_size, self.config.video.merge)
        visual_NW = self._encode(patches_PX)
        full = len(self.frames) == self.length
        if full:
            self._drop()
        keep_N = self._pruner.keep(patches_PX.view(len(visual_NW), -1))
        self.frames.append(SeenFrame(self.count, time, patches_PX, visual_NW, keep_N))
        self.count, self._last = self.count + 1, time
        return full

    def _check_time(self, time: float) -> None:
        if isinstance(time, bool) or not isinstance(time, Real) or not 0 <= time <= _LATEST:
            raise BadSampleError(f"a frame's time is {reprlib.repr(time)}: give seconds, 0 to {_LATEST:g}")
        if time <= self._last:
            raise BadSampleError(f"a frame at {time:g} s after one at {self._last:g} s: give times that increase")

    def _plan(self, height: int, width: int) -> tuple[int, int]:
        limits = self.config.video
        item = Item(
            height,
            width,
            factor=self.config.patch_size * limits.merge,
            min_tokens=limits.min_tokens,
            max_tokens=limits.max_tokens,
            frames=self.length,
            name="frame",
        )
        least, budget = item.tokens(item.smallest()), self.config.max_tokens
        if least > budget:
            raise UserError(
                f"a window of {self.length} frames needs at least {least} tokens, the budget is {budget}: give a "
                "smaller window, or raise max_tokens"
            )
        return plan_sizes([item], budget)[0]

    @torch.no_grad()
    def _encode(self, patches_PX: Tensor) -> Tensor:
        side = self.config.patch_size
        grid = (1, self._size[0] // side, self._size[1] // side)
        device = next(self.model.parameters()).device
        visual: Tensor = self.model.projector(
            self.model.vision(patches_PX.to(device), [grid], [self.config.video.merge])
        )
        return visual

    def _drop(self) -> None:
        """Let the oldest frames leave. The film begins with the first that stays: what is kept is decided anew."""
        self._pruner = Pruner(self.config.pruning)
        self.frames = [
            replace(frame, keep_N=self._pruner.keep(frame.patches_PX.view(len(frame.visual_NW), -1)))
            for frame in self.frames[self.leaving :]
        ]


def tokens_of(frames: Sequence[SeenFrame], first: int, end: int) -> Tensor:
    """Return the kept tokens of all frames (end - first, W), from the `first`-th on. There must be some."""
    parts, begin = [], 0
    for frame in frames:
        stop = begin + frame.kept
        if begin < end and first < stop:
            parts.append(frame.kept_tokens()[max(first - begin, 0) : end - begin])
        begin = stop
    return torch.cat(parts)


def _pixels(picture: Picture) -> Tensor:
    """Return the picture as uint8 (1, 3, H, W)."""
    if isinstance(picture, Image.Image):
        return frames_tensor([picture])
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8:
        return frames_tensor(picture[None])
    raise BadSampleError("a frame must be a PIL image or an array (H, W, 3), uint8")
