"""Frames of a video, sampled by time (arXiv 2501.13106, 2.1: 1 frame per second, 180 at most), decoded by PyAV.

The frame of time t is the one on display at t: the last whose time stamp is not behind t, counted from the first
stamp of the stream. So clips of variable frame rate, and of low ones, give what a viewer sees. Frames are resized as
they are decoded: a long film takes no more memory than the frames that the model will see.
"""

from __future__ import annotations

import math
import os
import reprlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from core.errors import BadSampleError
from model.images import resize

SEEK_GAP = 3.0
"""Seconds to the next wanted frame beyond which the decoder jumps to the key frame before it."""

DEMUXERS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "mxf", "rm", "nut", "wtv", "dv",
    "h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "ivf", "vc1", "mjpeg", "yuv4mpegpipe", "gif", "apng",
)  # fmt: skip
"""FFmpeg's names of the containers that are read: those that hold their frames themselves. Playlists (hls, concat, sdp,
dash, image2, …) are not among them: they open other files and hosts, whatever their own name is."""

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
    """

    path: str
    height: int
    width: int
    times: tuple[float, ...]
    quarters: int


def probe(
    path: str | Path, fps: float = 1.0, max_frames: int = 180, start: float = 0.0, end: float | None = None
) -> Video:
    """Look at a video: its size, and the times of its frames: start, start + 1/fps, …, before `end`.

    Of more than `max_frames` so many are taken, evenly spaced, first and last included.

    Raises:
        ValueError: No readable video, or nothing between start and end.
    """
    check_sampling(str(path), fps, max_frames, start, end)
    with _open(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise ValueError(f"{path}: a video without frames: give another file")
        length = _length(container, stream)
    if start >= max(length, 1e-6):
        raise ValueError(f"{path}: start {start:g} s is behind the end, {length:.1f} s: choose an earlier start")
    until = length if end is None else min(end, length)
    count = max(math.ceil((until - start) * fps - 1e-6), 1)
    most = min(max_frames, MOST_FRAMES)
    chosen = range(count) if count <= most else np.linspace(0, count - 1, most, dtype=int).tolist()
    quarters = round(first.rotation / 90) % 4
    height, width = (first.width, first.height) if quarters % 2 else (first.height, first.width)
    return Video(str(path), height, width, tuple(start + k / fps for k in chosen), quarters)


def check_sampling(name: str, fps: float, max_frames: int = 1, start: float = 0.0, end: float | None = None) -> None:
    """See that frames can be taken so.

    Raises:
        ValueError: Something is no number, not finite, or the wrong way round.
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


def decode(video: Video, size: tuple[int, int]) -> tuple[Tensor, tuple[float, ...]]:
    """Take the frames, upright and resized.

    Returns:
        uint8 (T, 3, *size), and the time of each in seconds: those of `video`, without what the file lacks at its end.

    Raises:
        ValueError: The file breaks off.
    """
    taken: list[Tensor] = []
    last = 0.0
    with _open(video.path) as (container, stream):
        shown = None
        for at, frame in _timed(container, stream, video.times, taken):
            while shown is not None and len(taken) < len(video.times) and video.times[len(taken)] < at - 1e-6:
                taken.append(_upright(shown, video.quarters, size))
            if len(taken) == len(video.times):
                break
            shown, last = frame, max(last, at + float((frame.duration or 0) * frame.time_base))
        while shown is not None and len(taken) < len(video.times) and (video.times[len(taken)] <= last or not taken):
            taken.append(_upright(shown, video.quarters, size))
    _check_end(video, len(taken), last)
    return torch.cat(taken), video.times[: len(taken)]


def _timed(container: Any, stream: Any, times: tuple[float, ...], taken: list[Tensor]) -> Iterator[tuple[float, Any]]:
    """Decoded frames with their times, jumping ahead while the next wanted time is far."""
    zero = float((stream.start_time or 0) * stream.time_base)
    position, may_seek = 0.0, True
    while True:
        target = times[len(taken)]
        jump = may_seek and target - position > SEEK_GAP
        if jump:
            container.seek(int((target + zero) / stream.time_base), stream=stream)
        landed = False
        try:
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                at = frame.time - zero
                if jump and not landed:
                    landed, may_seek = True, at > position  # no key frame on the way: read on from here instead
                yield at, frame
                position = max(position, at)
                if len(taken) == len(times):
                    return
                if may_seek and times[len(taken)] - position > SEEK_GAP:
                    break
            else:
                return
        except av.error.FFmpegError:  # what is broken off is told by `_check_end`
            return


def _upright(frame: Any, quarters: int, size: tuple[int, int]) -> Tensor:
    pixels_HW3 = np.rot90(frame.to_ndarray(format="rgb24"), quarters)
    return resize(torch.from_numpy(np.ascontiguousarray(pixels_HW3)).permute(2, 0, 1)[None], size)


def _check_end(video: Video, taken: int, last: float) -> None:
    if taken == 0:
        raise ValueError(f"{video.path}: no frame can be decoded: give another file")
    lost = video.times[-1] - last
    if taken < len(video.times) and lost > max(LOST[0] * video.times[-1], LOST[1]):
        raise ValueError(
            f"{video.path}: breaks off at {last:.1f} s, before {video.times[-1]:.1f} s: "
            f"give a whole file, or end={last:.1f}"
        )


def _length(container: Any, stream: Any) -> float:
    """Seconds of the stream: what the header tells, or the packets at the end if they go further.

    Headers count in decoding order, or from before the first frame, and may be missing.
    """
    zero = float((stream.start_time or 0) * stream.time_base)
    told = float((stream.duration or 0) * stream.time_base) or max((container.duration or 0) / 1e6 - zero, 0.0)
    with suppress(av.error.FFmpegError):
        container.seek(2**62, stream=stream)  # the last key frame
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.pts is not None:
                told = max(told, float((packet.pts + (packet.duration or 0)) * stream.time_base) - zero)
    return told


def open_container(path: str | Path) -> Any:
    """Open one film, and nothing else: FFmpeg may neither follow what a file names nor take a path for an address.

    Raises:
        BadSampleError: It is no regular file, or of no container that is read here.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever, a device never end
            raise ValueError("no regular file")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise BadSampleError(f"{path}: cannot be read as a video: {reason}; give a file") from error
    # External data of QuickTime's `dref` stay closed by FFmpeg's default; it is said here, for the default may change.
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file", "enable_drefs": "0"}
    try:
        # Titles in other encodings are no reason to refuse a film.
        return av.open(f"file:{os.fspath(path)}", metadata_errors="replace", container_options=options)
    except av.error.ArgumentError as error:
        raise BadSampleError(f"{path}: a playlist, or no known film: give mp4, mov, mkv, webm, avi, mpeg, …") from error
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error}; give a whole file") from error


@contextmanager
def _open(path: str | Path) -> Iterator[tuple[Any, Any]]:
    try:
        with open_container(path) as container:
            if not container.streams.video:
                raise BadSampleError(f"{path}: no video stream: give a video file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise BadSampleError(f"{path}: cannot be read as a video: {error}; give a whole file") from error
