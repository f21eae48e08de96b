"""Draft the records of a clip out of its facts: questions from a few templates, answers from the facts.

Events become dense captions, grounding and streams as those of imported films do (`importers.events`). Which template a
clip gets is a function of its film and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from core.control_tokens import as_words
from core.errors import BadSampleError, UserError
from core.records import Medium
from model.training.data.importers.events import Event, event_of, timed_drafts
from model.training.data.importers.format import ROW_ERRORS, Draft, reason_of
from model.training.data.importers.options_text import choice_turns, choices_from
from model.training.data.importers.turns import assistant, text_of, user
from pipeline.publishing.clips.facts import EVENTS, QUESTIONS, TEXTS

Row = Mapping[str, Any]
"""The facts of a clip, by column; missing ones are absent or null."""

BLIND = "answered without the film: a question that needs no look at it"

_ASKED: Mapping[str, tuple[str, ...]] = {
    "detailed": (
        "Describe the video in detail.",
        "What happens in this video? Give a detailed description.",
        "Write a detailed description of the video: what is seen, what happens, and in which order.",
    ),
    "summary": (
        "Summarize the video.",
        "What is this video about? Answer with a short summary.",
        "Give a summary of what happens in the video.",
    ),
    "short": (
        "Describe the video in one sentence.",
        "What does the video show? Be brief.",
        "Give the video a short caption.",
    ),
}
"""Questions whose answers are texts about a whole clip."""

_KINDS = {"dense_caption": "detailed", "detailed_caption": "detailed", "summary": "summary", "short_caption": "short"}
_SUBSETS = {"grounding": "grounding", "dense_caption": "captions", "stream": "stream"}
_MAKE = {"make": "grounding,dense,stream"}
_TIME_DIGITS = 3  # milliseconds; facts are 32-bit numbers


@dataclass(frozen=True)
class Piece:
    """What becomes one record, or why it becomes none.

    Attributes:
        subset: The subset; empty for an event that none can be made of.
        fact: The column that it is made of.
        draft: The draft, or the reason.
    """

    subset: str
    fact: str
    draft: Draft | BadSampleError


def pieces_of(row: Row, film: Medium, length: float, original_id: str) -> Iterator[Piece]:
    """Yield what the facts of a clip become, always in the same order.

    Args:
        row: The facts.
        film: The clip, with key `v0`.
        length: Its length, in seconds.
        original_id: What decides the templates.
    """
    for fact in TEXTS:
        if row.get(fact):
            yield Piece("captions", fact, _text_draft(row[fact], _KINDS[fact], film, original_id))
    for question in row.get(QUESTIONS) or ():
        yield Piece("questions", QUESTIONS, _checked(lambda one: _question_draft(one, film, original_id), question))
    for draft in timed_drafts(
        film, row.get(EVENTS) or (), lambda event: _event(event, length), _MAKE, original_id=original_id
    ):
        subset = "" if isinstance(draft, BadSampleError) else _SUBSETS[draft.task]
        yield Piece(subset, EVENTS, draft)


def _checked(make: Callable[[Any], Draft], value: Any) -> Draft | BadSampleError:
    try:
        return make(value)
    except UserError:
        raise
    except ROW_ERRORS as error:
        return BadSampleError(reason_of(error))


def _text_draft(text: str, kind: str, film: Medium, original_id: str) -> Draft:
    digest = blake2b(f"{original_id}\0{kind}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") % len(_ASKED[kind])
    turns = [user(film, f"\n{_ASKED[kind][number]}"), assistant(as_words(text))]
    template = f"question_from_template_{kind}_{number}"
    return Draft(turns, [film], original_id, task="caption", aspect=kind, transforms=(template,))


def _question_draft(entry: Mapping[str, Any], film: Medium, original_id: str) -> Draft:
    """Draft an open question, or one with options: `(A) a man`."""
    if entry.get("blind"):
        raise BadSampleError(BLIND)
    question, aspect = as_words(text_of(entry, "question")), text_of(entry, "aspect", "")
    if not question.strip():
        raise BadSampleError("a question without words")
    about: dict[str, Any] = {"original_id": original_id, "aspect": aspect}
    match entry.get("form"):
        case "open":
            turns = [user(film, f"\n{question}"), assistant(as_words(text_of(entry, "answer")))]
            return Draft(turns, [film], task="qa", **about)
        case "choice":
            options = [as_words(option) for option in entry.get("options") or ()]
            choices = choices_from(options, entry.get("answer_index"))
            return Draft(choice_turns(film, f"\n{question}", choices), [film], choices=choices, task="qa_mc", **about)
        case other:
            raise BadSampleError(f"a question of an unknown form: {other!r}")


def _event(event: Mapping[str, Any], length: float) -> Event:
    times = [round(float(event[name]), _TIME_DIGITS) for name in ("start", "end")]
    text = event["text"]
    return event_of(times, as_words(text) if isinstance(text, str) else text, length)
