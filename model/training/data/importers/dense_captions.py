"""Dense captions: sentences with the span of a film each, as one answer and its spans."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import BadSampleError
from core.records import Medium, Span, Turn
from model.training.data.grounding import span_text
from model.training.data.importers.turns import assistant, user

WRITTEN = "text_of_spans"
"""Transform: the times were numbers beside the captions, and stand in the text now."""

DENSE_QUESTION = "Describe the events of the video, each with its start and end."

Event = tuple[float, float, str]
"""Start and end in seconds of the clip, and what happens."""


def dense_turns(film: Medium, events: Sequence[Event], question: str = DENSE_QUESTION) -> list[Turn]:
    """Return a question for all events, and them as the answer: a line each, `1.0-2.5 s: A man sits.`.

    Raises:
        BadSampleError: There is no event, one has no words, or it ends before it starts.
    """
    if not events:
        raise BadSampleError("no events: nothing is described")
    if silent := [start for start, _, text in events if not text.strip()]:
        raise BadSampleError(f"empty caption: at {silent[0]:g} s")
    lines = [f"{span_text([(start, end)])}: {' '.join(text.split())}" for start, end, text in events]
    spans = tuple(Span(media=film.key, start=start, end=end) for start, end, _ in events)
    return [user(film, question), assistant("\n".join(lines), spans=spans)]
