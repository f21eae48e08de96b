"""Times of decoded frames, in seconds from the start of the stream, by the presentation times of the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from core.film_length import start_of


class UnusableTimesError(Exception):
    """A frame has no time, or its time is before that of the previous frame. `core.frame_counting` counts instead."""


def timed(frames: Iterable[Any], stream: Any) -> Iterator[tuple[float, Any]]:
    """Yield frames with their times in seconds. Frames before the first with a time are left out.

    Raises:
        UnusableTimesError: A later frame has no time, or the times go backwards.
    """
    zero, before = 0.0, -math.inf
    for frame in frames:
        if frame.time is None:
            if before == -math.inf:
                continue  # a cut stream has frames before its first key frame
            raise UnusableTimesError
        zero = start_of(stream, frame.time) if before == -math.inf else zero
        at = frame.time - zero
        if at < before - 1e-6:
            raise UnusableTimesError
        yield at, frame
        before = max(before, at)
