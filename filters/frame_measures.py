"""What sampled frames of a clip say without a model: motion, stillness, black frames, black borders, DiffFP's share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

STILL = 0.5
"""Mean absolute difference, in grey levels, up to which two frames are one picture.

A photograph as a film of 10 s (x264, CRF 23 and 35), at 2 frames a second: nine tenths of the differences are below
0.35, those across key frames 1 to 5. The smallest of four real clips is 4.3."""

BLACK = 32
"""Values below this are nearly black (0 to 255), as in FFmpeg's `blackframe`."""

BLACK_SHARE = 0.98
"""Share of nearly black values that makes a frame nearly black, as in FFmpeg's `blackframe`."""

BORDER = 24
"""Largest value of a black border, 0 to 255, as in FFmpeg's `cropdetect`."""

BLOCK = 28
"""Side of a merged token in pixels: patches of 14 pixels, merge size 2."""

DIFF_FP = 0.1
"""DiffFP's published threshold (arXiv 2501.13106, 2.2), in its unit of half a grey level: 0.05 grey levels."""


class Measures(NamedTuple):
    """What the frames of a clip say.

    Attributes:
        motion: Mean absolute difference of the pixels of neighbouring frames, in grey levels, 0 to 255; None if there
            is one frame.
        kept_share: Share of tokens that DiffFP keeps, 0 to 1.
        still_share: Share of neighbouring frames that differ by at most `STILL`, 0 to 1; None if there is one frame.
        black_share: Share of nearly black frames, 0 to 1.
        border_share: Share of the picture's area that is a black border in all frames, 0 to 1; 1 if all is black.
    """

    motion: float | None
    kept_share: float
    still_share: float | None
    black_share: float
    border_share: float


class FrameMeasures:
    """Takes the frames of a clip, one after another. It holds five of their size."""

    def __init__(self) -> None:
        self._before: Frame | None = None
        self._brightest = self._difference = self._scratch = np.empty(0, np.uint8)
        self._differences: list[float] = []
        self._kept: list[float] = []
        self._black = 0

    def add(self, frame: Frame) -> None:
        """Take the next frame: RGB, uint8 (H, W, 3), of the same size as the others."""
        if self._before is None:
            # New memory for each frame would take longer than all the arithmetic.
            self._brightest, self._difference, self._scratch = frame.copy(), np.empty_like(frame), np.empty_like(frame)
            self._kept.append(1.0)
        else:
            np.maximum(self._brightest, frame, out=self._brightest)
            difference = self._absolute_difference(frame, self._before)
            self._differences.append(int(difference.sum(dtype=np.uint64)) / difference.size)
            self._kept.append(kept_share(difference))
        dark = np.count_nonzero(np.less(frame, BLACK, out=self._scratch.view(np.bool_)))
        self._black += bool(dark >= BLACK_SHARE * frame.size)
        self._before = frame

    def _absolute_difference(self, frame: Frame, before: Frame) -> Frame:
        np.minimum(frame, before, out=self._scratch)
        np.maximum(frame, before, out=self._difference)
        return np.subtract(self._difference, self._scratch, out=self._difference)

    def result(self) -> Measures:
        """Return the measures of the frames, of which there is at least one."""
        pairs = np.array(self._differences)
        return Measures(
            motion=float(pairs.mean()) if len(pairs) else None,
            kept_share=float(np.mean(self._kept)),
            still_share=float((pairs <= STILL).mean()) if len(pairs) else None,
            black_share=self._black / len(self._kept),
            border_share=border_share(self._brightest),
        )


def kept_share(difference: Frame) -> float:
    """Return the share of a frame's tokens that DiffFP keeps, 0 to 1.

    A token, 28 x 28 pixels, is kept if the mean absolute difference of its values is above the threshold; the first one
    also if no token is. So the decision equals that of the processor of VideoLLaMA3 on a picture of this size. Rows and
    columns behind the last whole token do not count.

    Args:
        difference: Absolute difference from the frame before, uint8 (H, W, 3).
    """
    height, width = min(BLOCK, difference.shape[0]), min(BLOCK, difference.shape[1])
    rows, columns = difference.shape[0] // height, difference.shape[1] // width
    whole = difference[: rows * height, : columns * width]
    # Sums of one direction at a time, in integers: both are several times faster than floats.
    sums = whole.reshape(rows, height, columns * width * 3).sum(axis=1, dtype=np.uint16)
    totals = sums.reshape(rows, columns, width * 3).sum(axis=2, dtype=np.uint32)
    kept = int(np.count_nonzero(totals * 2 > DIFF_FP * height * width * 3))
    return max(kept, 1) / int(totals.size)


def border_share(brightest: Frame) -> float:
    """Return the share of the area outside of the smallest rectangle that holds all values above `BORDER`, 0 to 1.

    Args:
        brightest: The largest value of each pixel and channel over the frames of a clip, uint8 (H, W, 3).
    """
    rows = np.flatnonzero(brightest.max(axis=(1, 2)) > BORDER)
    columns = np.flatnonzero(brightest.max(axis=(0, 2)) > BORDER)
    if not len(rows):
        return 1.0
    inside = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1 - inside / int(brightest.shape[0] * brightest.shape[1])
