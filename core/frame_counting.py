"""Compute frame times by counting, for films without usable presentation times: AVI, raw streams, joined files."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from core.containers import open_film
from core.films import FilmFile

log = logging.getLogger("vl3syn.videos")

WITHOUT_TIMES = frozenset("avi h261 h263 h264 hevc vvc m4v mpegvideo mjpeg vc1".split())
"""Containers without presentation times: AVI and raw streams. FFmpeg invents times from the decoding order."""

JOINED = frozenset({"mpegts", "mpeg"})
"""Containers whose files may be concatenated parts, where times start again, or may lack times of some frames."""

_PLACES = 10
"""Into so many pieces a file is divided to look for joined parts: a tenth of the length may be lost, by `LOST`."""


@dataclass(frozen=True)
class Count:
    """How to count the frames of a file without usable presentation times.

    Attributes:
        step: Seconds from one frame to the next.
        gaps: Whether the packets' numbers (decoding times) are usable: all there, and rising. Their gaps show where
            frames were dropped.
    """

    step: float
    gaps: bool


def has_times(path: str | Path | FilmFile, kind: str) -> bool:
    """Return whether the packets have usable presentation times. Only `JOINED` containers are read to find out."""
    kinds = set(kind.split(","))
    if not kinds & JOINED:
        return not kinds & WITHOUT_TIMES
    shown: list[bool] = []
    before = -math.inf
    for packet in _packets(path):
        rises = packet.dts is None or packet.dts >= before
        shown.append(packet.pts is not None and rises)
        before = before if packet.dts is None else packet.dts
    return all(shown[shown.index(True) :]) if True in shown else False  # a cut stream starts with unusable packets


def may_be_joined(container: Any, stream: Any) -> bool:
    """Return whether times fall from one place of a file to the next, as where joined parts begin again.

    Only `_PLACES` are looked at, so the last part may be overlooked if it is shorter than their distance.

    Args:
        container, stream: From `core.containers.open_film`. The container is at another place afterwards.
    """
    import av

    before = -math.inf
    with suppress(av.error.FFmpegError):
        for place in range(1, _PLACES):
            container.seek(container.size * place // _PLACES, stream=stream, unsupported_byte_offset=True)
            time = next((packet.dts for packet in container.demux(stream) if packet.dts is not None), before)
            if time < before:
                return True
            before = time
    return False


def _packets(path: str | Path | FilmFile) -> Iterator[Any]:
    """Yield the non-empty video packets of a film, up to the first error."""
    import av

    with open_film(path) as (container, stream), suppress(av.error.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def count_frames(path: str | Path | FilmFile, kind: str) -> tuple[Count, float]:
    """Return how to count the frames of a film without usable times, and its length in seconds."""
    _tell_of_counting(kind)
    with open_film(path) as (_, stream):
        base = stream.time_base
        rate = stream.guessed_rate or stream.average_rate or stream.base_rate or Fraction(25)
    packets = [(packet.dts, packet.duration) for packet in _packets(path)]
    durations = sorted(duration for _, duration in packets if duration)
    step = float(durations[len(durations) // 2] * base if durations else 1 / rate)
    times = [time for time, _ in packets if time is not None]
    distances = {after - before for before, after in pairwise(times)}
    gaps = len(times) == len(packets) and len(distances) > 1 and min(distances) > 0  # joined parts begin again
    slots = float((times[-1] - times[0]) * base) if gaps else (len(packets) - 1) * step
    return Count(step, gaps), slots + step


def counted(frames: Iterator[Any], count: Count) -> Iterator[tuple[float, Any]]:
    """Yield frames with their times in seconds: by frame number, or with `count.gaps` by the packets' numbers.

    The decoder returns a frame with the number of the last packet that went in. This is later than the frame's own
    number, but by the same amount for every frame, so the distances are right. The last frames have no number.
    """
    first, at = None, -count.step
    for number, frame in enumerate(frames):
        if not count.gaps:
            at = number * count.step
        elif frame.dts is None:
            at += count.step
        else:
            first = frame.dts if first is None else first
            at = float((frame.dts - first) * frame.time_base)
        yield at, frame


@functools.lru_cache(maxsize=64)  # warn once per container: data sets have thousands of such files
def _tell_of_counting(kind: str) -> None:
    log.warning("frames of %s carry no usable times: they are counted, in decoding order, at the frame rate", kind)
