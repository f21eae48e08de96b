"""Films whose colour changes at known times, and the recipe that cuts, describes and publishes them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from tests.films import render

COLOURS = {
    "red": (220, 20, 20),
    "green": (0, 160, 0),
    "blue": (30, 30, 230),
    "yellow": (240, 220, 30),
    "purple": (140, 30, 160),
}

RATE = 4
"""Pictures a second."""

CLIP, CLIPS = 8, 4
"""Seconds of a clip, and clips of a film: films are cut into equal parts, wherever their colours change."""


CHANGES = [(first - 0.25, second - 0.25) for first in (2, 3, 4) for second in (4, 5, 6) if second - first > 1]
"""When the colour of a clip may change, in seconds: half way between samples at 2 a second."""


class Shown(NamedTuple):
    """A colour, from `start` to `end` in seconds of its clip."""

    start: float
    end: float
    colour: str


def clip(random: Random) -> list[Shown]:
    """Three colours, no one twice: so a colour names one event."""
    first, second = random.choice(CHANGES)
    ends = [0.0, first, second, float(CLIP)]
    return [Shown(ends[at], ends[at + 1], colour) for at, colour in enumerate(random.sample(sorted(COLOURS), 3))]


def films(folder: Path, count: int) -> dict[tuple[str, int], list[Shown]]:
    """Render so many films. Return what each clip shows, by the film's name and the clip's start in seconds."""
    folder.mkdir(parents=True)
    random, shown = Random(0), {}
    for number in range(count):
        clips = [clip(random) for _ in range(CLIPS)]
        pictures = [
            np.full((56, 56, 3), COLOURS[event.colour], np.uint8)
            for event in (event for events in clips for event in events)
            for _ in range(round((event.end - event.start) * RATE))
        ]
        render(folder / f"{number}.mp4", pictures, RATE)
        shown |= {(f"{number}.mp4", CLIP * at): events for at, events in enumerate(clips)}
    return shown


def recipe(pool: Path) -> dict[str, Any]:
    """The films are cut into equal parts; every sampled frame is stored, so that the times of events are exact."""
    return {
        "name": "colours",
        "pool": {"videos": str(pool)},
        "stages": [{"stage": "scenes"}],
        "clips": {
            "min_score": 100,  # no change of colour is a cut
            "longest": CLIP,
            "stages": [{"stage": "frames", "stored": 2 * CLIP, "side": 56}, {"stage": "describe_clip"}],
            "publish": {"films": "encode"},
        },
    }
