"""Choose the times at which a film is sampled, and the moments whose frames on display stand for them.

There are two choices (`Sampling`):

* `exact`: the frame on display at a sampled time, that is, the last one whose time stamp is not after it. So clips with
  a variable or low frame rate give what a viewer sees.
* `original`: the frame on display just before the next sampled time. This is what FFmpeg's filter `fps` with
  `round=down` gives, which the published weights were trained with: frames 24, 49, 74, … of a film at 25 frames per
  second are labelled 0, 1, 2, … s, and the last second counts only if it is complete.
"""

from __future__ import annotations

import math
import reprlib
from bisect import bisect_right
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Literal

import numpy as np

from core.errors import BadSampleError

Sampling = Literal["exact", "original"]

FPS, MOST_FRAMES, LONGEST = (1e-6, 1000), 1_000_000, 1e9
"""Range of frames per second, largest number of frames taken, latest start in seconds. More would exhaust memory."""

FOLDER_FPS = 3.0
"""Default rate of a folder of frames, as in the reference."""

EDGE = 2e-6
"""A moment just before another one is earlier by this, in seconds. Times within half of it are equal."""


def check_sampling(
    name: str,
    fps: float,
    max_frames: int = 1,
    start: float = 0.0,
    end: float | None = None,
    *,
    frames_fps: float = FOLDER_FPS,
    until: float | None = None,
) -> None:
    """Check the sampling settings of the video `name`.

    Raises:
        BadSampleError: A value is not a number, out of range, or `end` is not after `start`. With `until`, both may
            equal `start`.
    """
    options = {"end": end, "until": until}
    limits = {name: value for name, value in options.items() if value is not None}
    numbers = (fps, max_frames, start, frames_fps, *limits.values())
    if (
        any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers)
        or not isinstance(max_frames, Integral)
        # No conversion to float, which fails for an integer of 400 digits.
        or not (FPS[0] <= fps <= FPS[1] and FPS[0] <= frames_fps <= FPS[1])
        or not (1 <= max_frames < 2**63 and 0 <= start <= LONGEST)
        or not all(limit > start or (until is not None and limit == start) for limit in limits.values())
        or not (until is None or until <= LONGEST)
    ):
        given = {"fps": fps, "max_frames": max_frames, "start": start, **options, "frames_fps": frames_fps}
        shown = ", ".join(f"{name} {reprlib.repr(value)}" for name, value in given.items())
        raise BadSampleError(
            f"{name}: {shown}: give numbers, fps above 0 and up to {FPS[1]}, max_frames of 1 or more, "
            "and 0 <= start < end"
        )


def plan(
    length: float,
    rate: float,
    fps: float,
    max_frames: int,
    start: float,
    end: float | None,
    *,
    sampling: Sampling,
    until: float | None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the sampled times of a film, and for each the moment whose frame on display is taken, in seconds.

    Args:
        length: Length of the film, in seconds.
        rate: Average frames per second of the film; 0 if unknown.
        fps: Sampled frames per second.
        max_frames: Maximum number of frames. Of more, that many are taken, evenly spaced, first and last included.
        start: First sampled time.
        end: End of the sampled times; None for the end of the film.
        sampling: The choice of frames.
        until: For a stream, the last time that is wanted; exact sampling then includes the frame at `end`.
    """
    stop = length if end is None else min(end, length)
    if sampling == "original":
        if stop < length and rate:  # the filter ends with the first frame that is not before the end
            ticks = math.ceil(start * rate - EDGE) + math.ceil((stop - start) * rate - EDGE)
            stop = min(ticks / rate, length)
        count = math.floor((stop - start) * fps + EDGE / 2)
    elif until is not None and stop < length:
        count = math.floor((stop - start) * fps + EDGE / 2) + 1
    else:
        count = math.ceil((stop - start) * fps - EDGE / 2)
    count, most = max(count, 1), min(max_frames, MOST_FRAMES)
    chosen = range(count) if count <= most else np.linspace(0, count - 1, most, dtype=int).tolist()
    times = tuple(start + k / fps for k in chosen)
    moments = times if sampling == "exact" else tuple(min(start + (k + 1) / fps, stop) - EDGE for k in chosen)
    wanted = count_until(times, until)
    return times[:wanted], moments[:wanted]


def count_until(times: Sequence[float], until: float | None) -> int:
    """Return how many of some ascending times are not after `until`; None for all."""
    return len(times) if until is None else bisect_right(times, until + EDGE / 2)
