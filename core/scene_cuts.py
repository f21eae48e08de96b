"""Find the possible scene cuts of a film, its key frames, and the length that can be decoded, in one pass.

Frames are scaled down before they are compared (`core.cut_scores`), to a longer side of 160 pixels: thresholds mean the
same for films of any size, and fine noise does not count. FFmpeg's filter `scdet` is not used itself: PyAV passes its
scores on from version 18.1 only. A test compares the scores.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.containers import open_film
from core.cut_scores import CutScorer, Luma
from core.errors import BadSampleError
from core.film_length import LOST
from core.film_pieces import LONGEST_FILM
from core.films import FilmFile
from core.frame_counting import Count, count_frames, counted, has_times
from core.frame_times import UnusableTimesError, timed

_SIDE = 160  # pixels, the longer side of the frames that are compared


@dataclass(frozen=True)
class SceneCuts:
    """What one pass over a film shows. Times are seconds from the film's start, as in `core.videos`.

    Attributes:
        cut_times: Times of the frames that may start a scene, ascending (`core.cut_scores.CutScorer`).
        cut_scores: Their scores, from `core.cut_scores.CANDIDATE` to 100.
        key_times: Times of the key frames, ascending.
        length: End of the last frame that could be decoded.
        frames: Number of frames that could be decoded.
    """

    cut_times: Sequence[float]
    cut_scores: Sequence[float]
    key_times: Sequence[float]
    length: float
    frames: int


def find_cuts(film: str | FilmFile, duration: float | None = None) -> SceneCuts:
    """Decode a film from start to end, once, and return its possible cuts. No frames stay in memory.

    Args:
        film: The film.
        duration: Its length in seconds by its container, if known.

    Raises:
        BadSampleError: The film cannot be read, or breaks off: more of `duration` is lost than `core.videos.LOST`
            allows, or a part is and `duration` is unknown.
    """
    try:
        walk = _walk(film, None)
    except UnusableTimesError:
        walk = _walk(film, count_frames(film, str(film))[0])
    _check(film, walk, duration)
    return SceneCuts(walk.cuts.times, walk.cuts.scores, walk.key_times, walk.length, walk.frames)


class _Walk:
    """The facts of the frames seen so far; `is_whole` once the film has been read to its end."""

    def __init__(self) -> None:
        self.cuts, self.key_times = CutScorer(), array("d")
        self.length, self.frames, self.is_whole = 0.0, 0, False


def _walk(film: str | FilmFile, count: Count | None) -> _Walk:
    import av

    walk = _Walk()
    with open_film(film) as (container, stream):
        kind = container.format.name
        if count is None and not has_times(film, kind):
            count, _ = count_frames(film, kind)
        keys: set[int] = set()
        frames = _decoded(container, stream, keys, walk)
        shrink = _Shrinker(stream)
        before = 0.0
        try:
            for at, frame in counted(frames, count) if count else timed(_with_first_time(frames), stream):
                # What can be copied starts at a packet that the container marks, which may be fewer than the decoder's.
                is_key = frame.key_frame if count else frame.pts in keys
                keys.discard(frame.pts)
                walk.cuts.add(at, shrink(frame))
                if is_key:
                    walk.key_times.append(at)
                walk.frames += 1
                walk.length = at + (count.step if count else _shown(frame, stream, at - before))
                before = at
        except av.error.FFmpegError:  # `_check` reports a film that breaks off
            pass
    walk.cuts.finish()
    return walk


def _decoded(container: Any, stream: Any, keys: set[int], walk: _Walk) -> Iterator[Any]:
    """Yield the frames of a film; add the times of its key packets to `keys`, in the stream's unit."""
    for packet in container.demux(stream):
        if packet.is_keyframe and packet.pts is not None:
            keys.add(packet.pts)
        yield from packet.decode()
    walk.is_whole = True


def _with_first_time(frames: Iterator[Any]) -> Iterator[Any]:
    """Yield frames of a film whose first frame has a time; the frames of others are counted, as in `core.videos`."""
    for number, frame in enumerate(frames):
        if number == 0 and frame.pts is None:
            raise UnusableTimesError
        yield frame


def _shown(frame: Any, stream: Any, since: float) -> float:
    """Return how long a frame is shown, in seconds: as its packet says, else by the rate, else as the one before."""
    rate = stream.average_rate or stream.guessed_rate
    return float((frame.duration or 0) * frame.time_base) or (float(1 / rate) if rate else since)


class _Shrinker:
    """Scale frames of one film down to their luma, int16 (height, width), in the range of video (16 to 235)."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._graph: Any = None

    def __call__(self, frame: Any) -> Luma:
        if self._graph is None:
            self._graph = self._build(frame)
        self._graph.vpush(frame)
        plane = self._graph.vpull().planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : plane.width].astype(np.int16)

    def _build(self, first: Any) -> Any:
        """Return FFmpeg's filters. The size is that of the first frame's, whatever sizes follow in the film."""
        from av.filter import Graph

        scale = min(1.0, _SIDE / max(first.width, first.height))
        width, height = (max(1, round(side * scale)) for side in (first.width, first.height))
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(template=self._stream)
        resized = graph.add("scale", f"{width}:{height}:flags=area:out_range=limited")
        graph.link_nodes(source, resized, graph.add("format", "yuv420p"), graph.add("buffersink")).configure()
        return graph


def _check(film: str | FilmFile, walk: _Walk, duration: float | None) -> None:
    if walk.frames == 0:
        raise BadSampleError(f"{film}: no frame can be decoded: give another file")
    if not walk.length <= LONGEST_FILM:
        raise BadSampleError(f"{film}: impossible length: ends at {walk.length:,.0f} s by its times; give another file")
    lost = None if duration is None else duration - walk.length
    if not walk.is_whole if lost is None else lost > max(LOST[0] * (duration or 0), LOST[1]):
        whole = "" if duration is None else f" of {duration:.1f} s"
        raise BadSampleError(f"{film}: breaks off: at {walk.length:.1f} s{whole}; give a whole file")
