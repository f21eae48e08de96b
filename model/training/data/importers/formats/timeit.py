"""TimeIT (TimeChat): questions and answers whose spans stand in the text only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Span
from model.training.data.grounding import spans_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import assistant, list_of_turns, text_of, user, video

NO_SPAN = "an answer without a time span"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry. Texts stay as they are."""
    entry = row.entry
    film, asked = video(entry.get("video")), list_of_turns(entry.get("QA"))
    if not asked:
        raise BadSampleError("no question: `QA` is empty")
    turns, notes = [], []
    for number, pair in enumerate(asked):
        answer = text_of(pair, "a")
        spans = tuple(Span(media="v0", start=start, end=end) for start, end in spans_of(answer))
        question = "\n".join(text for text in (text_of(pair, "i", ""), text_of(pair, "q")) if text)
        asking = user(question) if number else user(film, f"\n{question}")
        turns += [asking, assistant(answer, spans=spans)]
        notes += [] if spans else [NO_SPAN]
    has_spans = len(notes) < len(asked)
    yield Draft(
        turns,
        [film],
        subset=text_of(entry, "source", ""),
        task="grounding" if has_spans else "",
        transforms=("spans_from_text",) if has_spans else (),
        notes=notes,
    )


def _fits(entry: Mapping[str, Any]) -> bool:
    asked = entry.get("QA")
    answers = [pair.get("a") for pair in asked if isinstance(pair, dict)] if isinstance(asked, list) else []
    return "source" in entry and any(isinstance(answer, str) and spans_of(answer) for answer in answers)


FORMAT = Format(
    name="timeit",
    about="TimeIT: questions about times, of TimeChat",
    read=read,
    fits=_fits,
    profiles=(Profile("timeit", Licence(name="CC-BY-4.0")),),
)
