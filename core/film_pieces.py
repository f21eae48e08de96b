"""Divide a film into pieces at its scene cuts. Nothing is read: the cuts are facts of the film (`core.scene_cuts`).

All times are whole milliseconds, so that the same cut always gives the same piece. They are rounded up: the frame on
display when a piece starts is then the first frame of its scene, not the last of the scene before. A frame belongs to
the piece with `start <= milliseconds(time) / 1000 < end`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import Field

from core.cut_scores import CANDIDATE
from core.settings import Settings

LONGEST_FILM = 1e6
"""Seconds (11 days). A longer film has wrong times; its pieces could fill the memory."""

_ROUNDING = 1e-6  # milliseconds; floats such as 1.001 * 1000 are a little below or above the whole number


class PieceSettings(Settings):
    """How a film is divided into pieces. `benchmarks/scene_cuts.py` measures the defaults.

    Attributes:
        min_score: Lowest score of a cut, 2 to 100.
        min_gap: Of two cuts that are nearer than this, in seconds, the one with the higher score counts.
        longest: A scene that is longer than this, in seconds, is divided into equal pieces.
        trim: Seconds that are left out at both ends of each piece, where a fade or a late cut may be.
        snap: `key` moves the start of each piece to the next key frame and its end to the last one, so that its packets
            can be copied as they are. The film's end may stay an end.
    """

    min_score: float = Field(default=4.0, ge=CANDIDATE, le=100)
    min_gap: float = Field(default=0.6, ge=0, le=LONGEST_FILM)
    longest: float = Field(default=60.0, ge=1, le=LONGEST_FILM)
    trim: float = Field(default=0.0, ge=0, le=LONGEST_FILM)
    snap: Literal["none", "key"] = "none"


@dataclass(frozen=True)
class Piece:
    """A piece of a film. Times are seconds from the film's start, in whole milliseconds.

    Attributes:
        scene_start: Start of the part of the film that the piece is cut from.
        scene_end: End of that part, and start of the next one. The parts of all pieces are the whole film.
        start: Start of the piece itself.
        end: End of the piece itself. It equals `start` if nothing is left after `trim` and `snap`.
    """

    scene_start: float
    scene_end: float
    start: float
    end: float


def milliseconds(seconds: float) -> int:
    """Return a time in milliseconds, rounded up."""
    return math.ceil(seconds * 1000 - _ROUNDING)


def select_cuts(
    cut_times: Sequence[float], cut_scores: Sequence[float], min_score: float, min_gap: float
) -> tuple[float, ...]:
    """Return the times of the cuts that count, ascending, in seconds.

    A cut with a higher score wins against all cuts that are nearer than `min_gap`; of equal ones, the earlier cut. So a
    higher `min_score` only takes cuts away.
    """
    return tuple(cut / 1000 for cut in _selected(cut_times, cut_scores, min_score, min_gap))


def pieces(
    length: float,
    cut_times: Sequence[float],
    cut_scores: Sequence[float],
    key_times: Sequence[float],
    settings: PieceSettings,
) -> tuple[Piece, ...]:
    """Divide a film into pieces, in order. The scenes of the pieces are the film from 0 to `length`, without overlap.

    Args:
        length: Length of the film in seconds.
        cut_times: Times of possible cuts, in seconds from the film's start, in any order.
        cut_scores: Their scores, 0 to 100.
        key_times: Times of the key frames, in seconds; used by `snap`.
        settings: How to divide.
    """
    cuts = _selected(cut_times, cut_scores, settings.min_score, settings.min_gap)
    film_end = milliseconds(length)
    keys = sorted({milliseconds(time) for time in key_times}) if settings.snap == "key" else None
    bounds = [0, *(cut for cut in cuts if 0 < cut < film_end), film_end]
    return tuple(
        _piece(start, end, film_end, keys, settings)
        for scene in pairwise(bounds)
        for start, end in _divided(*scene, math.floor(settings.longest * 1000))
    )


def _selected(cut_times: Sequence[float], cut_scores: Sequence[float], min_score: float, min_gap: float) -> list[int]:
    """Return the times of the cuts that count, ascending, in milliseconds."""
    gap = max(milliseconds(min_gap), 1)
    ranked = sorted(
        (-score, milliseconds(time)) for time, score in zip(cut_times, cut_scores, strict=True) if score >= min_score
    )
    selected: list[int] = []
    for _, cut in ranked:
        after = bisect_left(selected, cut)
        if all(abs(cut - other) >= gap for other in selected[max(after - 1, 0) : after + 1]):
            insort(selected, cut)
    return selected


def _divided(start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """Yield the equal parts of a scene, as many as are needed for none to be longer than `longest`."""
    count = -((start - end) // longest)
    return pairwise(start + (end - start) * part // count for part in range(count + 1)) if count else iter(())


def _piece(scene_start: int, scene_end: int, film_end: int, keys: list[int] | None, settings: PieceSettings) -> Piece:
    trim = milliseconds(settings.trim)
    start, end = scene_start + trim, scene_end - trim
    if start > end:
        start = end = (scene_start + scene_end) // 2
    if keys is not None:
        start, end = _snapped(start, end, film_end, keys)
    return Piece(scene_start / 1000, scene_end / 1000, start / 1000, end / 1000)


def _snapped(start: int, end: int, film_end: int, keys: list[int]) -> tuple[int, int]:
    """Return the first and the last place inside of a piece where packets can be cut; twice its start without any."""
    first, last = bisect_left(keys, start), bisect_right(keys, end) - 1
    if first == len(keys) or keys[first] >= end:
        return start, start
    return keys[first], end if end == film_end else max(keys[last], keys[first])
