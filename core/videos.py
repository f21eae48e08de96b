"""Read a film's metadata (`probe`), and choose the times of its frames (arXiv 2501.13106, 2.1).

Times count from the first time stamp of the stream. AVI and some raw streams have no presentation times; in other files
some are missing or go backwards. In these files the frames are counted, in decoding order, at the stream's frame rate.
A folder of frames is a film at a given rate. `core/frame_sampling.py` chooses the frames, and `core/sampled_frames.py`
decodes them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from core.containers import open_film
from core.errors import BadSampleError
from core.film_length import LOST, read_length
from core.films import FilmFile
from core.frame_counting import Count, count_frames, has_times
from core.frame_folders import list_frames, read_frame
from core.frame_pixels import Frame
from core.frame_sampling import FOLDER_FPS, Sampling, check_sampling, plan
from core.sampled_frames import Video, decode

__all__ = ["Frame", "Video", "choose", "decode", "probe"]


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
    path: str | Path | FilmFile,
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
        path: A video file, a folder of frames, or a film of a pool.
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
    is_folder = not isinstance(path, FilmFile) and os.path.isdir(path)
    film = _probe_folder(str(path), frames_fps) if is_folder else _probe_file(path)
    video = Video(
        path if isinstance(path, FilmFile) else str(path),
        height=film.height,
        width=film.width,
        times=(),
        moments=(),
        quarters=film.quarters,
        count=film.count,
        files=film.files,
        frames_fps=frames_fps,
        length=film.length,
        rate=film.rate,
    )
    return choose(video, fps, max_frames, start, end, sampling=sampling, until=until)


def choose(
    video: Video,
    fps: float = 1.0,
    max_frames: int = 180,
    start: float = 0.0,
    end: float | None = None,
    *,
    sampling: Sampling = "exact",
    until: float | None = None,
) -> Video:
    """Choose other times of a film that was probed. Nothing is read. Arguments and errors are those of `probe`."""
    path, length = video.path, video.length
    check_sampling(str(path), fps, max_frames, start, end, frames_fps=video.frames_fps, until=until)
    if start >= max(length, 1e-6):
        raise BadSampleError(
            f"{path}: behind the end: start {start:g} s, the film ends at {length:.1f} s; choose an earlier start"
        )
    if until is not None and until - length > max(LOST[0] * length, LOST[1]):
        raise BadSampleError(f"{path}: {until:g} s is behind the end, {length:.1f} s: give times in seconds")
    times, moments = plan(length, video.rate, fps, max_frames, start, end, sampling=sampling, until=until)
    return replace(video, times=times, moments=moments)


def _probe_file(path: str | Path | FilmFile) -> _Film:
    with open_film(path, threads=1) as (container, stream):  # more threads would decode more frames
        first = next(container.decode(stream), None)
        if first is None:
            raise BadSampleError(f"{path}: a video without frames: give another file")
        kind, rate = container.format.name, float(stream.average_rate or 0)
        counting = None
        if first.pts is None or not has_times(path, kind):
            counting, length = count_frames(path, kind)
        else:
            length = read_length(container, stream, first.time).seconds
    quarters = round(first.rotation / 90) % 4
    height, width = (first.width, first.height) if quarters % 2 else (first.height, first.width)
    return _Film(height, width, length, rate, quarters, counting)


def _probe_folder(path: str | Path, frames_fps: float) -> _Film:
    files = list_frames(path)
    height, width, _ = read_frame(files[0]).shape
    return _Film(height, width, len(files) / frames_fps, frames_fps, files=tuple(files))
