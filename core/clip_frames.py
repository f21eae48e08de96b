"""Decode the frames of a piece of a film, one after another, each with its time in the piece.

`core.videos` samples frames for a model. Here every frame counts, so that the piece can be encoded again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from core.containers import open_film
from core.errors import BadSampleError
from core.film_length import LOST
from core.film_seeking import decode_from
from core.films import FilmFile
from core.frame_counting import Count, count_frames, counted, has_times
from core.frame_pixels import FrameConverter
from core.frame_sampling import EDGE
from core.frame_times import timed

TimedFrame = tuple[float, npt.NDArray[np.uint8]]
"""Seconds from the start of the piece, and the pixels of an upright frame, uint8 (H, W, 3)."""


def has_frame_times(film: FilmFile) -> bool:
    """Return whether the file says when each frame is shown. AVI and raw streams do not.

    Raises:
        BadSampleError: It cannot be read as a film.
    """
    with open_film(film) as (container, _):
        kind = container.format.name
    return has_times(film, kind)


def frames_between(film: FilmFile, start: float, end: float, *, count: bool) -> Iterator[TimedFrame]:
    """Yield the frames that are on display from `start` to before `end`, in seconds from the film's first time stamp.

    The first one has the time 0: it may have been on display before, or be the first of the film that can be decoded.

    Args:
        film: The film.
        start: Start of the piece, in seconds.
        end: End of the piece, in seconds.
        count: Whether the times of frames are counted, as the file does not say them (`has_frame_times`).

    Raises:
        BadSampleError: The film cannot be read, or breaks off within the piece.
        UnusableTimesError: The times of frames are unusable after all; only without `count`.
    """
    converters: dict[int, FrameConverter] = {}
    for number, (at, frame) in enumerate(_on_display(film, start, end, _count(film) if count else None)):
        quarters = round(frame.rotation / 90) % 4
        convert = converters.setdefault(quarters, FrameConverter(quarters))
        yield at - start if number else 0.0, convert(frame)


def _on_display(film: FilmFile, start: float, end: float, counting: Count | None) -> Iterator[tuple[float, Any]]:
    """Yield the frames of a piece with their times in the film."""
    shown: tuple[float, Any] | None = None
    with open_film(film) as (container, stream), closing(_timed(container, stream, start, counting)) as frames:
        for at, frame in frames:
            if at >= end - EDGE / 2:
                break
            if shown is not None and at > start + EDGE / 2:
                yield shown
            shown = at, frame
        else:
            check_end(film, start, end, 0.0 if shown is None else _end_of(shown))
        if shown is None:
            raise BadSampleError(f"{film}: no frame before {end:g} s can be decoded: give another file")
        yield shown


def _end_of(shown: tuple[float, Any]) -> float:
    at, frame = shown
    return at + float((frame.duration or 0) * frame.time_base)


def _count(film: FilmFile) -> Count:
    with open_film(film) as (container, _):
        kind = container.format.name
    return count_frames(film, kind)[0]


def _timed(
    container: Any, stream: Any, start: float, counting: Count | None
) -> Generator[tuple[float, Any], None, None]:
    """Yield frames with their times, from the last key frame before `start` on, or from an earlier one."""
    if counting:
        yield from counted(container.decode(stream), counting)
        return
    if stream.start_time is None:
        yield from timed(container.decode(stream), stream)
    else:
        yield from decode_from(container, stream, start)


def check_end(film: FilmFile, start: float, end: float, last: float) -> None:
    """Check that a film whose last frame ends at `last` has the piece from `start` to `end`; all in seconds.

    Raises:
        BadSampleError: It lacks more of the piece than rounded lengths explain.
    """
    if last < start - EDGE or end - last > max(LOST[0] * (end - start), LOST[1]):
        raise BadSampleError(f"{film}: breaks off: at {last:.1f} s, before {end:.1f} s; give a whole file")
