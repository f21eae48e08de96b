"""Read a film's metadata (`probe`) and decode frames that are sampled by time (arXiv 2501.13106, 2.1).

The frame at time t is the one on display at t: the last frame whose time stamp is not after t, counted from the first
time stamp of the stream. So clips with a variable or low frame rate give what a viewer sees. AVI and some raw streams
have no presentation times; in other files some are missing or go backwards. In these files the frames are counted, in
decoding order, at the stream's frame rate.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from core.containers import open_film
from core.errors import BadSampleError
from core.frame_counting import Count, count_frames, counted, has_times

Frame = npt.NDArray[np.uint8]
Kept = TypeVar("Kept")

SEEK_GAP = 3.0
"""If the next sampled frame is further away than this, in seconds, the decoder seeks to the key frame before it."""

FPS, MOST_FRAMES, LONGEST = (1e-6, 1000), 1_000_000, 1e9
"""Range of frames per second, largest number of frames taken, latest start in seconds. More would exhaust memory."""

LOST = 0.1, 1.0
"""What may be missing at the end: a fraction of the length, or seconds. Containers round durations, and audio may be
longer."""


@dataclass(frozen=True)
class Video:
    """A film's metadata and the times to sample; no frames are decoded yet.

    Attributes:
        path: Path of the file.
        height: Height of an upright frame, in pixels.
        width: Width of an upright frame, in pixels.
        times: Times of the frames to take, in seconds from the start of the stream, ascending.
        quarters: Quarter turns counter-clockwise that turn a frame upright.
        count: How the frames are counted; None if the file has presentation times.
    """

    path: str
    height: int
    width: int
    times: tuple[float, ...]
    quarters: int
    count: Count | None = None


def probe(
    path: str | Path, fps: float = 1.0, max_frames: int = 180, start: float = 0.0, end: float | None = None
) -> Video:
    """Read a video's frame size and choose the times to sample: start, start + 1/fps, …, before `end` (seconds).

    If there are more than `max_frames` times, that many are taken, evenly spaced, first and last included.

    Raises:
        BadSampleError: The video cannot be read, the sampling is invalid, or the start is after the end of the film.
    """
    check_sampling(str(path), fps, max_frames, start, end)
    with open_film(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise BadSampleError(f"{path}: a video without frames: give another file")
        kind = container.format.name
        counting = None
        if first.pts is None or not has_times(str(path), kind):
            counting, length = count_frames(str(path), kind)
        else:
            length = _length(container, stream, first.time)
    if start >= max(length, 1e-6):
        raise BadSampleError(f"{path}: start {start:g} s is behind the end, {length:.1f} s: choose an earlier start")
    until = length if end is None else min(end, length)
    count = max(math.ceil((until - start) * fps - 1e-6), 1)
    most = min(max_frames, MOST_FRAMES)
    chosen = range(count) if count <= most else np.linspace(0, count - 1, most, dtype=int).tolist()
    quarters = round(first.rotation / 90) % 4
    height, width = (first.width, first.height) if quarters % 2 else (first.height, first.width)
    return Video(str(path), height, width, tuple(start + k / fps for k in chosen), quarters, counting)


def check_sampling(name: str, fps: float, max_frames: int = 1, start: float = 0.0, end: float | None = None) -> None:
    """Check the sampling settings of the video `name`.

    Raises:
        BadSampleError: A value is not a number, out of range, or `end` is not after `start`.
    """
    numbers = (fps, max_frames, start, *(() if end is None else (end,)))
    if (
        any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers)
        or not isinstance(max_frames, Integral)
        # No conversion to float, which fails for an integer of 400 digits.
        or not (FPS[0] <= fps <= FPS[1] and 1 <= max_frames < 2**63 and 0 <= start <= LONGEST)
        or not (end is None or end > start)
    ):
        shown = ", ".join(
            f"{key} {reprlib.repr(value)}"
            for key, value in (("fps", fps), ("max_frames", max_frames), ("start", start), ("end", end))
        )
        raise BadSampleError(
            f"{name}: {shown}: give numbers, fps above 0 and up to {FPS[1]}, max_frames of 1 or more, "
            "and 0 <= start < end"
        )


def decode(video: Video, keep: Callable[[Frame], Kept]) -> tuple[list[Kept], tuple[float, ...]]:
    """Decode the sampled frames, one after another.

    Args:
        video: From `probe`.
        keep: Called with each upright frame, uint8 (H, W, 3). Only its results stay in memory.

    Returns:
        The results of `keep`, and their times in seconds: `video.times`, without times that the file lacks at its end.

    Raises:
        BadSampleError: The file cannot be read or breaks off.
    """
    try:
        return _decode(video, keep)
    except _UnusableTimesError:
        counting, _ = count_frames(video.path, video.path)
        return _decode(replace(video, count=counting), keep)


class _UnusableTimesError(Exception):
    """A frame has no time, or its time is before that of the previous frame."""


def _decode(video: Video, keep: Callable[[Frame], Kept]) -> tuple[list[Kept], tuple[float, ...]]:
    taken: list[Kept] = []
    last = 0.0
    with open_film(video.path) as (container, stream):
        shown = None
        for at, frame in _timed(container, stream, video, taken):
            while shown is not None and len(taken) < len(video.times) and video.times[len(taken)] < at - 1e-6:
                taken.append(keep(_upright(shown, video.quarters)))
            if len(taken) == len(video.times):
                break
            shown, last = frame, max(last, at + float((frame.duration or 0) * frame.time_base))
        while shown is not None and len(taken) < len(video.times) and (video.times[len(taken)] <= last or not taken):
            taken.append(keep(_upright(shown, video.quarters)))
    _check_end(video, len(taken), last)
    return taken, video.times[: len(taken)]


def _timed(container: Any, stream: Any, video: Video, taken: list[Kept]) -> Iterator[tuple[float, Any]]:
    """Yield decoded frames with their times in seconds. Seek ahead where the next sampled time is far away."""
    import av

    if video.count:  # counting needs every frame, so there is no seeking
        with suppress(av.error.FFmpegError):  # `_check_end` reports a film that breaks off
            yield from counted(container.decode(stream), video.count)
        return
    zero: float | None = None if stream.start_time is None else _zero(stream, 0.0)
    position, may_seek = 0.0, zero is not None
    while True:
        target = video.times[len(taken)]
        jump = may_seek and target - position > SEEK_GAP
        if jump and zero is not None:
            container.seek(int((target + zero) / stream.time_base), stream=stream)
        landed, before = False, -math.inf
        try:
            for frame in container.decode(stream):
                if frame.time is None:
                    if before == -math.inf:
                        continue  # a cut stream has frames before its first key frame
                    raise _UnusableTimesError
                zero = _zero(stream, frame.time) if zero is None else zero
                at = frame.time - zero
                if at < before - 1e-6:
                    raise _UnusableTimesError
                if jump and not landed:
                    landed, may_seek = True, at > position  # no key frame in between: continue without seeking
                yield at, frame
                position, before = max(position, at), at
                if len(taken) == len(video.times):
                    return
                if may_seek and video.times[len(taken)] - position > SEEK_GAP:
                    break
            else:
                return
        except av.error.FFmpegError:  # `_check_end` reports a film that breaks off
            return


def _upright(frame: Any, quarters: int) -> Frame:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))


def _check_end(video: Video, taken: int, last: float) -> None:
    if taken == 0:
        raise BadSampleError(f"{video.path}: no frame can be decoded: give another file")
    lost = video.times[-1] - last
    if taken < len(video.times) and lost > max(LOST[0] * video.times[-1], LOST[1]):
        raise BadSampleError(
            f"{video.path}: breaks off at {last:.1f} s, before {video.times[-1]:.1f} s: "
            f"give a whole file, or end={last:.1f}"
        )


def _zero(stream: Any, first: float) -> float:
    """Return the time that counts as 0, in seconds: the header's start of the stream, else that of the first frame."""
    return first if stream.start_time is None else float(stream.start_time * stream.time_base)


def _length(container: Any, stream: Any, first: float) -> float:
    """Return the length of the stream in seconds: from the header, or from the last packets if they end later.

    A header may count in decoding order, may count from before the first frame, or may lack the duration.
    """
    import av

    zero = _zero(stream, first)
    seconds = float((stream.duration or 0) * stream.time_base) or max((container.duration or 0) / 1e6 - zero, 0.0)
    with suppress(av.error.FFmpegError):
        container.seek(2**62, stream=stream)  # the last key frame
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.pts is not None:
                seconds = max(seconds, float((packet.pts + (packet.duration or 0)) * stream.time_base) - zero)
    return seconds
