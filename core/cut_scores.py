"""Score the frames of a film: where may a scene be cut?

`difference` is the mean absolute difference of luma to the frame before, in percent of 256 levels. The score of a frame
is by how much its difference exceeds that of the frame before. This is the score of FFmpeg's filter `scdet`
(libavfilter/vf_scdet.c: min(d, |d - d before|)) wherever the difference rises; it is never higher. A hard cut has a
high score. Motion, fades and dissolves have low ones: all their frames differ.

Two more tests keep what is no cut from being one:

* Shake: a cut differs at least 3 times as much as the two frames before and the two after it on average, the test of
  PySceneDetect's AdaptiveDetector (adaptive_threshold 3.0, window_width 2).
* Flash: if the film returns to the frame before a cut within 0.25 s, neither the cut nor the return is one.

`benchmarks/scene_cuts.py` measures all this.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.int16]

CANDIDATE = 2.0
"""Lowest score of a cut that is stored: no setting may ask for lower ones."""

_STANDS_OUT = 3.0  # times the mean difference of the neighbours
_NEIGHBOURS = 2  # frames on each side
_FLASH = 0.25  # seconds
_RETURN = 0.5  # of the difference at a cut: a frame that is nearer to the one before the cut is a return to it
_WAITING = 32  # candidates that wait for the end of a flash at most, as each holds a frame


@dataclass
class _Candidate:
    """A frame that may start a scene, until the frames that decide are seen.

    Attributes:
        at: Its time in seconds.
        difference: Its difference to the frame before.
        score: Its score.
        before: The luma of the frame before.
        neighbours: The differences of the frames before and after it.
        following: How many frames after it are among them.
        is_flash: Whether the film has returned to the frame before.
    """

    at: float
    difference: float
    score: float
    before: Luma
    neighbours: list[float]
    following: int = 0
    is_flash: bool = False

    def is_cut(self) -> bool:
        return not self.is_flash and self.difference >= _STANDS_OUT * sum(self.neighbours) / len(self.neighbours)


class CutScorer:
    """Collects the possible cuts of a film, frame by frame. It holds few frames at once, whatever the film's length.

    Attributes:
        times: Times of the frames that may start a scene, ascending, in seconds.
        scores: Their scores, from `CANDIDATE` to 100.
    """

    def __init__(self) -> None:
        # Arrays, as a hostile film may have a million candidates.
        self.times, self.scores = array("d"), array("f")
        self._before: Luma | None = None
        self._differences: deque[float] = deque(maxlen=_NEIGHBOURS)
        self._waiting: deque[_Candidate] = deque()

    def add(self, at: float, luma: Luma) -> None:
        """Take the next frame.

        Args:
            at: Its time in seconds.
            luma: Its luma, 0 to 255, (height, width); the same size for all frames.
        """
        if self._before is not None:
            difference = _difference(luma, self._before)
            is_return = self._follow(at, luma, difference)
            # Without a difference before, nothing can rise: the second frame of a film starts no scene.
            score = difference - self._differences[-1] if self._differences else 0.0
            if score >= CANDIDATE and not is_return:
                self._waiting.append(_Candidate(at, difference, score, self._before, list(self._differences)))
            self._differences.append(difference)
        self._before = luma
        while self._waiting and (self._is_decided(self._waiting[0], at) or len(self._waiting) > _WAITING):
            self._settle()

    def finish(self) -> None:
        """Decide on the last candidates; no frame follows."""
        while self._waiting:
            self._settle()

    def _follow(self, at: float, luma: Luma, difference: float) -> bool:
        """Tell the candidates of a frame. Return whether the film returns with it to what it showed before one."""
        is_return = False
        for candidate in self._waiting:
            if candidate.following < _NEIGHBOURS:
                candidate.neighbours.append(difference)
                candidate.following += 1
            if at - candidate.at <= _FLASH and _difference(luma, candidate.before) < _RETURN * candidate.difference:
                candidate.is_flash = is_return = True
        return is_return

    def _is_decided(self, candidate: _Candidate, at: float) -> bool:
        return at - candidate.at > _FLASH and candidate.following == _NEIGHBOURS

    def _settle(self) -> None:
        candidate = self._waiting.popleft()
        if candidate.is_cut():
            self.times.append(candidate.at)
            self.scores.append(candidate.score)


def _difference(one: Luma, other: Luma) -> float:
    return float(np.abs(one - other).mean(dtype=np.float64)) * 100 / 256
