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
    """Takes the frames of a clip, one after another. It holds three of their size."""

    def __init__(self) -> None:
        self._before: Frame | None = None
        self._difference = self._scratch = np.empty(0, np.uint8)
        self._picture = Picture()
        self._differences: list[float] = []
        self._kept: list[float] = []
        self._black = 0

    def add(self, frame: Frame) -> None:
        """Take the next frame: RGB, uint8 (H, W, 3), of the same size as the others."""
        if self._before is None:
            # New memory for each frame would take longer than all the arithmetic.
            self._difference, self._scratch = np.empty_like(frame), np.empty_like(frame)
            self._kept.append(1.0)
        else:
            difference = self._absolute_difference(frame, self._before)
            sums = TokenSums.of(difference)
            self._differences.append(sums.total / difference.size)
            self._kept.append(sums.kept_share())
        self._picture.add(frame)
        self._black += is_black(frame)
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
            border_share=self._picture.border_share(),
        )


class TokenSums(NamedTuple):
    """How much a frame differs from the one before, token by token.

    Attributes:
        tokens: Sum of the absolute differences of each token's values, (rows of tokens, columns of tokens). A token
            has 28 x 28 pixels; of a smaller frame, all its rows or columns.
        values: Number of values of a token.
        total: Sum over the whole frame, with the rows and columns behind the last whole token.
    """

    tokens: npt.NDArray[np.uint32]
    values: int
    total: int

    @classmethod
    def of(cls, difference: Frame) -> TokenSums:
        """Return the sums of an absolute difference, uint8 (H, W, 3). It is read once."""
        height, width = min(BLOCK, difference.shape[0]), min(BLOCK, difference.shape[1])
        rows, columns = difference.shape[0] // height, difference.shape[1] // width
        bottom, right = rows * height, columns * width
        # Sums of one direction at a time, in integers: both are several times faster than floats.
        sums = difference[:bottom, :right].reshape(rows, height, right * 3).sum(axis=1, dtype=np.uint16)
        tokens = sums.reshape(rows, columns, width * 3).sum(axis=2, dtype=np.uint32)
        rest = difference[bottom:], difference[:bottom, right:]
        total = sum(int(part.sum(dtype=np.uint64)) for part in (tokens, *rest))
        return cls(tokens, height * width * 3, total)

    def kept_share(self) -> float:
        """Return the share of the frame's tokens that DiffFP keeps, 0 to 1.

        A token is kept if the mean absolute difference of its values is above the threshold; the first one also if no
        token is. So the decision equals that of the processor of VideoLLaMA3 on a picture of this size.
        """
        kept = int(np.count_nonzero(self.tokens * 2 > DIFF_FP * self.values))
        return max(kept, 1) / int(self.tokens.size)


class Picture:
    """The smallest rectangle that holds all values above `BORDER` of the frames so far."""

    def __init__(self) -> None:
        self._sides: tuple[slice, slice] | None = None
        self._area = 0

    def add(self, frame: Frame) -> None:
        """Take the next frame: uint8 (H, W, 3), of the same size as the others."""
        self._area = frame.shape[0] * frame.shape[1]
        if self._sides is None:
            rows, columns = _bright(frame, 0), _bright(frame, 1)
            self._sides = (rows, columns) if rows.stop else None
            return
        # Only what lies outside can make it larger: in most films, nothing does.
        rows, columns = self._sides
        above, below = _bright(frame[: rows.start], 0), _bright(frame[rows.stop :], 0)
        left, right = _bright(frame[:, : columns.start], 1), _bright(frame[:, columns.stop :], 1)
        self._sides = _joined(rows, above, below), _joined(columns, left, right)

    def border_share(self) -> float:
        """Return the share of the area outside of the rectangle, 0 to 1; 1 if all is black."""
        if self._sides is None:
            return 1.0
        rows, columns = self._sides
        inside = int((rows.stop - rows.start) * (columns.stop - columns.start))
        return 1 - inside / self._area


def _bright(part: Frame, axis: int) -> slice:
    """Return the rows (axis 0) or columns (1) from the first to the last with a value above `BORDER`; 0:0 without."""
    if not part.size:
        return slice(0, 0)
    found = np.flatnonzero(part.max(axis=(1 - axis, 2)) > BORDER)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _joined(side: slice, before: slice, behind: slice) -> slice:
    """Return a side with what was found before it, and behind it (counted from its end)."""
    return slice(before.start if before.stop else side.start, side.stop + behind.stop)


def is_black(frame: Frame) -> bool:
    """Say whether a frame, uint8 (H, W, 3), is nearly black."""
    least = BLACK_SHARE * frame.size
    # An eighth of the rows tells of most frames that too much is bright.
    if frame.size - np.count_nonzero(frame[::8] >= BLACK) < least:
        return False
    return int(np.count_nonzero(frame < BLACK)) >= least
