"""Read a film's metadata (`probe`) and decode frames that are sampled by time (arXiv 2501.13106, 2.1).

Times count from the first time stamp of the stream. AVI and some raw streams have no presentation times; in other files
some are missing or go backwards. In these files the frames are counted, in decoding order, at the stream's frame rate.
A folder of frames is a film at a given rate. `core/frame_sampling.py` chooses the frames.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.containers import open_film
from core.errors import BadSampleError
from core.frame_counting import Count, count_frames, counted, has_times
from core.frame_folders import list_frames, read_frame
from core.frame_sampling import EDGE, FOLDER_FPS, Sampling, check_sampling, plan
from core.images import flatten

Frame = npt.NDArray[np.uint8]
Kept = TypeVar("Kept")

SEEK_GAP = 3.0
"""If the next sampled frame is further away than this, in seconds, the decoder seeks to the key frame before it."""

LOST = 0.1, 1.0
"""What may be missing at the end: a fraction of the length, or seconds. Containers round durations, and audio may be
longer."""


@dataclass(frozen=True)
class Video:
    """A film's metadata and the times to sample; no frames are decoded yet.

    Attributes:
        path: Path of the file, or of the folder of frames.
        height: Height of an upright frame, in pixels.
        width: Width of an upright frame, in pixels.
        times: Sampled times, in seconds from the start of the stream, ascending.
        moments: For each time, the moment whose frame on display is taken.
        quarters: Quarter turns counter-clockwise that turn a frame upright.
        count: How the frames are counted; None if the file has presentation times.
        files: The frames of a folder, in order; none for a file.
        frames_fps: Frames per second of these.
    """

    path: str
    height: int
    width: int
    times: tuple[float, ...]
    moments: tuple[float, ...]
    quarters: int = 0
    count: Count | None = None
    files: tuple[str, ...] = ()
    frames_fps: float = FOLDER_FPS


@dataclass(frozen=True)
class _Film:
    """What `probe` reads of a film; `rate` is its average number of frames per second, 0 if unknown."""

    height: int
    width: int
    length: float
    rate: float
    quarters: int = 0
    count: Count | None = None
    files: tuple[str, ...] = ()


def probe(
    path: str | Path,
    fps: float = 1.0,
    max_frames: int = 180,
    start: float = 0.0,
    end: float | None = None,
    *,
    sampling: Sampling = "exact",
    frames_fps: float = FOLDER_FPS,
    until: float | None = None,
) -> Video:
    """Read a video's frame size and choose the times to sample: start, start + 1/fps, …, before `end` (seconds).

    If there are more than `max_frames` times, that many are taken, evenly spaced, first and last included.

    Args:
        path: A video file, or a folder of frames.
        fps: Sampled frames per second.
        max_frames: Maximum number of frames.
        start: First sampled time, in seconds.
        end: End of the sampled times, in seconds; None for the end of the film.
        sampling: Which frames stand for these times.
        frames_fps: Frames per second of a folder of frames.
        until: For a stream: the last time that is wanted, at or before `end`. Earlier times do not depend on it.

    Raises:
        BadSampleError: The video cannot be read, the sampling is invalid, or `start` or `until` is after its end.
    """
    check_sampling(str(path), fps, max_frames, start, end, frames_fps=frames_fps, until=until)
    film = _probe_folder(path, frames_fps) if os.path.isdir(path) else _probe_file(path)
    if start >= max(film.length, 1e-6):
        raise BadSampleError(
            f"{path}: start {start:g} s is behind the end, {film.length:.1f} s: choose an earlier start"
        )
    if until is not None and until - film.length > max(LOST[0] * film.length, LOST[1]):
        raise BadSampleError(f"{path}: {until:g} s is behind the end, {film.length:.1f} s: give times in seconds")
    times, moments = plan(film.length, film.rate, fps, max_frames, start, end, sampling=sampling, until=until)
    return Video(str(path), film.height, film.width, times, moments, film.quarters, film.count, film.files, frames_fps)


def _probe_file(path: str | Path) -> _Film:
    with open_film(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise BadSampleError(f"{path}: a video without frames: give another file")
        kind, rate = container.format.name, float(stream.average_rate or 0)
        counting = None
        if first.pts is None or not has_times(str(path), kind):
            counting, length = count_frames(str(path), kind)
        else:
            length = _length(container, stream, first.time)
    quarters = round(first.rotation / 90) % 4
    height, width = (first.width, first.height) if quarters % 2 else (first.height, first.width)
    return _Film(height, width, length, rate, quarters, counting)


def _probe_folder(path: str | Path, frames_fps: float) -> _Film:
    files = list_frames(path)
    height, width, _ = read_frame(files[0]).shape
    return _Film(height, width, len(files) / frames_fps, frames_fps, files=tuple(files))


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
    if video.files:
        return _decode_folder(video, keep), video.times
    try:
        return _decode(video, keep)
    except _UnusableTimesError:
        counting, _ = count_frames(video.path, video.path)
        return _decode(replace(video, count=counting), keep)


def _decode_folder(video: Video, keep: Callable[[Frame], Kept]) -> list[Kept]:
    taken = []
    for moment in video.moments:
        file = video.files[min(int((moment + EDGE / 2) * video.frames_fps), len(video.files) - 1)]
        frame = read_frame(file)
        if frame.shape[:2] != (video.height, video.width):
            raise BadSampleError(
                f"{file}: {frame.shape[1]} x {frame.shape[0]} pixels, the first frame has {video.width} x "
                f"{video.height}: resize the frames to one size"
            )
        taken.append(keep(frame))
    return taken


class _UnusableTimesError(Exception):
    """A frame has no time, or its time is before that of the previous frame."""


def _decode(video: Video, keep: Callable[[Frame], Kept]) -> tuple[list[Kept], tuple[float, ...]]:
    taken: list[Kept] = []
    last = 0.0
    with open_film(video.path) as (container, stream):
        shown = None
        for at, frame in _timed(container, stream, video, taken):
            while shown is not None and len(taken) < len(video.times) and video.moments[len(taken)] < at - EDGE / 2:
                taken.append(keep(upright(shown, video.quarters)))
            if len(taken) == len(video.times):
                break
            shown, last = frame, max(last, at + float((frame.duration or 0) * frame.time_base))
        while shown is not None and len(taken) < len(video.times) and (video.moments[len(taken)] <= last or not taken):
            taken.append(keep(upright(shown, video.quarters)))
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
        target = video.moments[len(taken)]
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
                if may_seek and video.moments[len(taken)] - position > SEEK_GAP:
                    break
            else:
                return
        except av.error.FFmpegError:  # `_check_end` reports a film that breaks off
            return


def upright(frame: Any, quarters: int) -> Frame:
    """Return a decoded frame as pixels, uint8 (H, W, 3), turned counter-clockwise by quarter turns."""
    if any(component.is_alpha for component in frame.format.components):
        pixels = np.asarray(flatten(Image.fromarray(frame.to_ndarray(format="rgba"))))
    else:
        pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, quarters))


def _check_end(video: Video, taken: int, last: float) -> None:
    if taken == 0:
        raise BadSampleError(f"{video.path}: no frame can be decoded: give another file")
    lost = video.moments[-1] - last
    if taken < len(video.times) and lost > max(LOST[0] * video.moments[-1], LOST[1]):
        raise BadSampleError(
            f"{video.path}: breaks off at {last:.1f} s, before {video.moments[-1]:.1f} s: "
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
