"""Films: looked at (`probe`), and decoded into frames that are sampled by time (arXiv 2501.13106, 2.1).

The frame of time t is the one on display at t: the last whose time stamp is not after t, counted from the first stamp
of the stream. Clips of variable frame rate, and of low ones, give what a viewer sees. AVI and some raw streams have no
presentation times, and other files lack some or have times that go back: there the frames are counted, in the order in
which they are decoded, at the stream's frame rate.
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

import av
import numpy as np
import numpy.typing as npt

from core.containers import open_film
from core.errors import BadSampleError
from core.frame_counting import Count, count_frames, counted, has_times

Frame = npt.NDArray[np.uint8]
Kept = TypeVar("Kept")

SEEK_GAP = 3.0
"""Seconds to the next wanted frame beyond which the decoder jumps to the key frame before it."""

FPS, MOST_FRAMES, LONGEST = (1e-6, 1000), 1_000_000, 1e9
"""Frames per second and seconds that may be asked for, frames that are taken: beyond them memory ends, not the film."""

LOST = 0.1, 1.0
"""What may be missing at the end: a share of the length, or seconds; containers round durations, and sound runs on."""


@dataclass(frozen=True)
class Video:
    """A file that was looked at, not yet decoded.

    Attributes:
        path: The file.
        height: Of a frame, upright, pixels.
        width: Of a frame, upright, pixels.
        times: When frames are to be taken, seconds from the start of the stream, ascending.
        quarters: Quarter turns to the left that bring a frame upright.
        count: How its frames are counted, where the file does not tell when each is shown.
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
    """Look at a video: its size, and the times of its frames: start, start + 1/fps, …, before `end`.

    Of more than `max_frames` so many are taken, evenly spaced, first and last included.

    Raises:
        BadSampleError: No readable video, or nothing between start and end.
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
    """See that frames can be taken so.

    Raises:
        BadSampleError: Something is no number, not finite, or the wrong way round.
    """
    numbers = (fps, max_frames, start, *(() if end is None else (end,)))
    if (
        any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers)
        or not isinstance(max_frames, Integral)
        # Compared as they are: an integer of 400 digits cannot become a float.
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
    """Take the frames, one after another.

    Args:
        video: From `probe`.
        keep: What to make of a frame, uint8 (H, W, 3), upright. Only its results stay in memory.

    Returns:
        What `keep` has made, and the time of each in seconds: those of `video`, without what the file lacks at its end.

    Raises:
        BadSampleError: The file breaks off.
    """
    try:
        return _decode(video, keep)
    except _UnusableTimesError:
        counting, _ = count_frames(video.path, video.path)
        return _decode(replace(video, count=counting), keep)


class _UnusableTimesError(Exception):
    """A frame has no time, or one before that of the frame shown before it."""


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
    """Decoded frames with their times, jumping ahead while the next wanted time is far."""
    if video.count:  # from the first frame on, so none may be jumped over
        with suppress(av.error.FFmpegError):  # what is broken off is told by `_check_end`
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
                        continue  # a cut stream: not yet at its first key frame
                    raise _UnusableTimesError
                zero = _zero(stream, frame.time) if zero is None else zero
                at = frame.time - zero
                if at < before - 1e-6:
                    raise _UnusableTimesError
                if jump and not landed:
                    landed, may_seek = True, at > position  # no key frame on the way: read on from here instead
                yield at, frame
                position, before = max(position, at), at
                if len(taken) == len(video.times):
                    return
                if may_seek and video.times[len(taken)] - position > SEEK_GAP:
                    break
            else:
                return
        except av.error.FFmpegError:  # what is broken off is told by `_check_end`
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
    """The time that counts as 0, seconds: where the stream starts, or the `first` frame's where no header tells."""
    return first if stream.start_time is None else float(stream.start_time * stream.time_base)


def _length(container: Any, stream: Any, first: float) -> float:
    """Seconds of the stream: what the header tells, or the packets at the end if they go further.

    Headers count in decoding order, or from before the first frame, and may be missing.
    """
    zero = _zero(stream, first)
    told = float((stream.duration or 0) * stream.time_base) or max((container.duration or 0) / 1e6 - zero, 0.0)
    with suppress(av.error.FFmpegError):
        container.seek(2**62, stream=stream)  # the last key frame
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.pts is not None:
                told = max(told, float((packet.pts + (packet.duration or 0)) * stream.time_base) - zero)
    return told
