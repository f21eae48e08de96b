"""Times of frames in films that do not tell them: AVI, raw streams, joined files. The frames are counted."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av

from core.containers import open_film

log = logging.getLogger("vl3syn.videos")

WITHOUT_TIMES = frozenset("avi h261 h263 h264 hevc vvc m4v mpegvideo mjpeg vc1".split())
"""Containers that store no presentation times: AVI and raw streams. FFmpeg makes them up from the decoding order."""

JOINED = frozenset({"mpegts", "mpeg"})
"""Containers whose files may be parts put one behind another, whose times begin anew, or lack times of some frames."""


@dataclass(frozen=True)
class Count:
    """How frames are counted where a file does not tell when they are shown.

    Attributes:
        step: Seconds from one frame to the next.
        gaps: Whether packets have numbers with gaps in them, which are where frames were dropped.
    """

    step: float
    gaps: bool


def has_times(path: str, kind: str) -> bool:
    """Whether the packets of a film say when their frames are shown; of most containers it is taken for granted."""
    kinds = set(kind.split(","))
    if not kinds & JOINED:
        return not kinds & WITHOUT_TIMES
    shown: list[bool] = []
    before = -math.inf
    for packet in _packets(path):
        rises = packet.dts is None or packet.dts >= before
        shown.append(packet.pts is not None and rises)
        before = before if packet.dts is None else packet.dts
    return all(shown[shown.index(True) :]) if True in shown else False  # what is before is the rest of a cut stream


def _packets(path: str) -> Iterator[Any]:
    """The packets of a film, as far as it can be read."""
    with open_film(path) as (container, stream), suppress(av.error.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def count_frames(path: str, kind: str) -> tuple[Count, float]:
    """How the frames of a film without usable times are counted, and its length in seconds."""
    _tell_of_counting(kind)
    with open_film(path) as (_, stream):
        base = stream.time_base
        rate = stream.guessed_rate or stream.average_rate or stream.base_rate or Fraction(25)
    packets = [(packet.dts, packet.duration) for packet in _packets(path)]
    durations = sorted(duration for _, duration in packets if duration)
    step = float(durations[len(durations) // 2] * base if durations else 1 / rate)
    times = sorted(time for time, _ in packets if time is not None)
    distances = {after - before for before, after in pairwise(times)}
    gaps = len(times) == len(packets) and 0 not in distances and len(distances) > 1
    slots = float((times[-1] - times[0]) * base) if gaps else (len(packets) - 1) * step
    return Count(step, gaps), slots + step


def counted(frames: Iterator[Any], count: Count) -> Iterator[tuple[float, Any]]:
    """Frames with the times that they have by their number, or, where numbers have gaps, by their packets' numbers.

    A frame comes out of the decoder with the number of the packet that went in last: later than its own by as much for
    every frame, so that distances are right. The last frames come without.
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


@functools.lru_cache(maxsize=64)  # once for each kind: data sets have thousands of such files
def _tell_of_counting(kind: str) -> None:
    log.warning("frames of %s carry no usable times: they are counted, in decoding order, at the frame rate", kind)
