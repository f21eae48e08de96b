"""Captions of clips from measurements, offline. They are no substitute for a model that sees films.

They state how long a clip is, how much of it moves, and which colours it has when. So a demo has dense captions with
times, and what trains on times can be tried without a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import numpy as np
import PIL
import pyarrow as pa

from captioners.films.dense import EVENTS
from captioners.films.questions import QUESTION
from captioners.offline.measurements import MEASURED_ON, Measured, measure
from captioners.offline.templates import BRIGHT, DARK, SHAPES, shades, shape
from core.errors import BadSampleError
from core.images import decode
from core.stages import ImageFacts, ImageStage
from manifests.schemas import column

_MOTION = ((12.0, "much motion"), (4.0, "some motion"), (1.0, "little motion"), (0.0, "hardly any motion"))
"""Least mean change between sampled frames, in grey levels, for each phrase. Ours."""


class Event(NamedTuple):
    """What is seen from a time to another, in seconds from the clip's start."""

    start: float
    end: float
    text: str


class DescribeClip(ImageStage):
    """`dense_caption`, `events`, `summary` and `questions` of a clip, from its stored frames and how much they change.

    An event is a stretch in which the stored frames have the same colours and light, in words. It begins half way
    between two frames. "Motion" is the mean change between sampled frames in grey levels (`motion` of the stage
    `frames`): from 12 "much", from 4 "some", from 1 "little", below "hardly any".
    """

    name: ClassVar = "describe_clip"
    reads: ClassVar = ("frames", "frame_times", "duration", "motion")
    writes: ClassVar = pa.schema(
        [
            column("dense_caption", pa.string(), "What is seen when, in sentences with times"),
            column("events", EVENTS, "Events with their times, in seconds from the clip's start"),
            column("event_count", pa.int32(), "Number of events", 0),
            column("summary", pa.string(), "One sentence on the clip"),
            column("questions", pa.list_(QUESTION), "Questions about the clip, with answers"),
            column("question_count", pa.int32(), "Number of questions", 0),
        ]
    )

    def remedy(self, column: str) -> str:
        return "put the stage `frames` before it, in a run of clips"

    def load(self) -> _Describer:
        return _Describer()


class _Describer(ImageFacts):
    """`ImageFacts` of `describe_clip`; `prepare` does all the work, in threads."""

    has_model = False

    def __init__(self) -> None:
        self.provenance = {"pillow": PIL.__version__, "numpy": np.__version__}

    def prepare(
        self, frames: Sequence[bytes] | None, times: Sequence[float] | None, duration: float, change: float | None
    ) -> dict[str, Any]:
        """Return the columns of one clip.

        Args:
            frames: Its stored frames, encoded.
            times: Their times in seconds from its start.
            duration: Its length in seconds.
            change: Mean change between sampled frames, in grey levels; None: there is one frame.

        Raises:
            BadSampleError: There are no frames, or one cannot be decoded.
        """
        if not frames or times is None:
            raise BadSampleError("no frames: nothing is stored")
        measured = [measure(decode(frame, 2 * MEASURED_ON), None, None) for frame in frames]
        events = list(_events([look(image) for image in measured], times, duration))
        middle, motion = measured[len(measured) // 2], motion_of(change)
        form = SHAPES[shape(middle)][0]
        said = " ".join(f"From {event.start:.1f} to {event.end:.1f} s the picture is {event.text}." for event in events)
        asked = list(_questions(events, motion))
        return {
            "dense_caption": f"A {form} clip of {duration:.1f} s{motion and ' with '}{motion}. {said}",
            "events": [
                {"start": event.start, "end": event.end, "text": f"The picture is {event.text}."} for event in events
            ],
            "event_count": len(events),
            "summary": f"A {form} clip of {duration:.0f} s, {look(middle)}{motion and ', with '}{motion}.",
            "questions": asked,
            "question_count": len(asked),
        }

    def __call__(self, inputs: Sequence[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(list(inputs), schema=DescribeClip.writes)


def look(image: Measured) -> str:
    """Return the colours of a frame in words, and its light where it is dark or bright."""
    light = ", and dark" if image.brightness < DARK else ", and bright" if image.brightness > BRIGHT else ""
    return f"{shades(image)}{light}"


def motion_of(change: float | None) -> str:
    """Return how much of a clip moves, in words; empty if unknown."""
    return "" if change is None else next(words for least, words in _MOTION if change >= least)


def _events(looks: Sequence[str], times: Sequence[float], duration: float) -> Iterator[Event]:
    """Yield an event for each stretch of frames that look alike."""
    start, frame = 0.0, 0
    for text, alike in groupby(looks):
        frame += len(list(alike))
        end = duration if frame == len(looks) else (times[frame - 1] + times[frame]) / 2
        yield Event(round(start, 3), round(end, 3), text)
        start = end


def _questions(events: Sequence[Event], motion: str) -> Iterator[dict[str, Any]]:
    if motion:
        yield _question("temporal", "How much of the picture moves in the clip?", f"There is {motion}.")
    if len(events) > 1:
        first, last = f"At first it is {events[0].text}.", f"At the end it is {events[-1].text}."
        yield _question("time_order", "What does the picture look like at the beginning of the clip?", first)
        yield _question("time_order", "What does the picture look like at the end of the clip?", last)


def _question(aspect: str, question: str, answer: str) -> dict[str, Any]:
    return {
        "aspect": aspect,
        "form": "open",
        "question": question,
        "answer": answer,
        "options": [],
        "answer_index": None,
        "blind": None,
    }
