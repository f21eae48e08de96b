"""Decode frames of a film at times that were chosen before: `core.videos.probe` returns a `Video`, `decode` its frames.

A decoder reads from one sampled time to the next, or seeks where that is far. It never seeks where frames are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from core.containers import open_film
from core.errors import BadSampleError
from core.film_length import LOST
from core.film_seeking import decode_from
from core.films import FilmFile
from core.frame_counting import Count, count_frames, counted
from core.frame_folders import read_frame
from core.frame_pixels import Frame, FrameConverter, scale_picture, scaled_size
from core.frame_sampling import EDGE, FOLDER_FPS
from core.frame_times import UnusableTimesError, timed

Kept = TypeVar("Kept")

SEEK_GAP = 3.0
"""If the next sampled frame is further away than this, in seconds, the decoder seeks to the key frame before it."""


@dataclass(frozen=True)
class Video:
    """A film's metadata and the times to sample; no frames are decoded yet.

    Attributes:
        path: Path of the file or of the folder of frames, or the film of a pool.
        height: Height of an upright frame, in pixels.
        width: Width of an upright frame, in pixels.
        times: Sampled times, in seconds from the start of the stream, ascending.
        moments: For each time, the moment whose frame on display is taken.
        quarters: Quarter turns counter-clockwise that turn a frame upright.
        count: How the frames are counted; None if the file has presentation times.
        files: The frames of a folder, in order; none for a file.
        frames_fps: Frames per second of these.
        length: Length of the film, in seconds.
        rate: Average frames per second of the film; 0 if unknown.
    """

    path: str | FilmFile
    height: int
    width: int
    times: tuple[float, ...]
    moments: tuple[float, ...]
    quarters: int = 0
    count: Count | None = None
    files: tuple[str, ...] = ()
    frames_fps: float = FOLDER_FPS
    length: float = 0.0
    rate: float = 0.0


def decode(
    video: Video,
    keep: Callable[[Frame], Kept],
    *,
    side: int | None = None,
    threads: int = 0,
    restarted: Callable[[], None] | None = None,
) -> tuple[list[Kept], tuple[float, ...]]:
    """Decode the sampled frames, one after another.

    Args:
        video: From `probe`.
        keep: Called with each upright frame, uint8 (H, W, 3). Only its results stay in memory.
        side: Longer side of these frames, in pixels; larger ones are scaled down. None: they stay as they are.
        threads: Threads of the decoder; 0: FFmpeg decides.
        restarted: Called if all frames are read again, since their times turned out to be unusable. What `keep` has
            returned until then is not used.

    Returns:
        The results of `keep`, and their times in seconds: `video.times`, without times that the file lacks at its end.

    Raises:
        BadSampleError: The file cannot be read or breaks off.
    """
    if video.files:
        return _decode_folder(video, lambda frame: keep(scale_picture(frame, side))), video.times
    size = None if side is None else scaled_size(video.height, video.width, side)
    convert = FrameConverter(video.quarters, size)
    try:
        return _decode(video, lambda frame: keep(convert(frame)), threads)
    except UnusableTimesError:
        counting, _ = count_frames(video.path, str(video.path))
        if restarted is not None:
            restarted()
        return _decode(replace(video, count=counting), lambda frame: keep(convert(frame)), threads)


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


def _decode(video: Video, keep: Callable[[Any], Kept], threads: int) -> tuple[list[Kept], tuple[float, ...]]:
    taken: list[Kept] = []
    last = 0.0
    with open_film(video.path, threads) as (container, stream):
        shown, tick = None, float(stream.time_base)
        for at, frame in _timed(container, stream, video, taken):
            while shown is not None and len(taken) < len(video.times) and video.moments[len(taken)] < at - EDGE / 2:
                taken.append(keep(shown))
            if len(taken) == len(video.times):
                break
            shown, last = frame, max(last, at + (frame.duration or 0) * tick)
        while shown is not None and len(taken) < len(video.times) and _is_shown(video.moments, len(taken), last):
            taken.append(keep(shown))
    _check_end(video, len(taken), last)
    return taken, video.times[: len(taken)]


def _timed(container: Any, stream: Any, video: Video, taken: list[Kept]) -> Iterator[tuple[float, Any]]:
    """Yield decoded frames with their times in seconds. Seek ahead where the next sampled time is far away."""
    import av

    if video.count:  # counting needs every frame, so there is no seeking
        with suppress(av.error.FFmpegError):  # `_check_end` reports a film that breaks off
            yield from counted(container.decode(stream), video.count)
        return
    position, may_seek = 0.0, stream.start_time is not None
    while True:
        target = video.moments[len(taken)]
        jump = may_seek and target - position > SEEK_GAP
        frames = decode_from(container, stream, target) if jump else timed(container.decode(stream), stream)
        landed = False
        try:
            for at, frame in frames:
                if jump and not landed:
                    landed, may_seek = True, at > position  # no key frame in between: continue without seeking
                yield at, frame
                position = max(position, at)
                if len(taken) == len(video.times):
                    return
                if may_seek and video.moments[len(taken)] - position > SEEK_GAP:
                    break
            else:
                return
        except av.error.FFmpegError:  # `_check_end` reports a film that breaks off
            return


def _is_shown(moments: Sequence[float], number: int, last: float) -> bool:
    """Return whether the last frame, which ends at `last`, is on display at a moment, or stands for the first one."""
    return moments[number] <= last or (number == 0 and moments[0] - last <= LOST[1])


def _check_end(video: Video, taken: int, last: float) -> None:
    if taken == 0 and last == 0:
        raise BadSampleError(f"{video.path}: no frame can be decoded: give another file")
    lost = video.moments[-1] - last
    if taken == 0 or (taken < len(video.times) and lost > max(LOST[0] * video.moments[-1], LOST[1])):
        raise BadSampleError(
            f"{video.path}: breaks off: at {last:.1f} s, before {video.moments[-1]:.1f} s; "
            f"give a whole file, or end={last:.1f}"
        )
