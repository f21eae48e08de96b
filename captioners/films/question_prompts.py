"""The prompts that ask for questions about a clip, and that ask such a question again without the clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from core.time_spans import seconds_text

Form = Literal["open", "choice"]

OPTIONS = 4
"""Number of options of a question with choices."""

_HEAD = "You write questions and answers that teach a model to understand videos."

_OPEN = "`options` is an empty list, and the answer is one short sentence."
_CHOICE = (
    f"exactly {OPTIONS} `options`: short, different, all of them plausible, one of them right. The answer is the text "
    "of the right option."
)
_FORMS = {
    "open": f"Each question is open: {_OPEN}",
    "choice": f"Each question has {_CHOICE}",
    "both": f"About half of the questions are open: {_OPEN} The others have {_CHOICE}",
}

_RULES = """Rules:
- Write as if you had watched the clip. Never mention a caption, a description, a text about the clip, or frames.
- Ask only for what the clip certainly shows. Each question has one right answer.
- Nobody should be able to guess the answer from the question and its options without the clip.
- Do not ask the same twice."""

_SHAPE = '{"questions": [{"aspect": "…", "question": "…", "options": [], "answer": "…"}]}'


class Asked(NamedTuple):
    """What a prompt asks for.

    Attributes:
        aspects: Descriptions of the aspects, by name.
        forms: `open`, `choice` or `both`.
        per_aspect: Most questions about one aspect.
        language: ISO 639-1.
    """

    aspects: Mapping[str, str]
    forms: str
    per_aspect: int
    language: str


class Event(NamedTuple):
    """An event of a clip: start and end in seconds from the clip's start, and what happens."""

    start: float
    end: float
    text: str


def about_text(asked: Asked, duration: float, caption: str, events: Sequence[Event]) -> str:
    """Return the prompt for a model that reads what is known of a clip of so many seconds."""
    lines = [f"{event.start:.1f}-{event.end:.1f} s: {event.text}" for event in events]
    known = [f"What happens in a clip of {seconds_text(duration)} seconds:", caption]
    return "\n\n".join(
        [_HEAD, "\n".join(known), *(["Its events:\n" + "\n".join(lines)] if lines else []), _end(asked, duration)]
    )


def about_frames(asked: Asked, duration: float) -> str:
    """Return the prompt for a model that sees frames of a clip of so many seconds."""
    seen = f"You see a clip of {seconds_text(duration)} seconds. Before each picture is its time."
    return "\n\n".join([_HEAD, seen, _end(asked, duration)])


def again(prompt: str, fault: str) -> str:
    """Return the prompt after an answer that could not be used."""
    return f"{prompt}\n\nAn earlier answer could not be used: {fault}. Answer with the JSON object and nothing else."


def without_clip(question: str, options: Sequence[str], sees: bool) -> str:
    """Return the prompt that asks a question without the clip.

    Args:
        question: The question.
        options: Its options; empty for an open question.
        sees: Whether a black picture is shown in place of the clip.
    """
    start = "Answer the question about the clip." if sees else "Answer the question about a clip that you cannot see."
    lines = [f"({'ABCD'[number]}) {option}" for number, option in enumerate(options)]
    how = "Give the letter of one option and nothing else." if options else "Give one short sentence and nothing else."
    return "\n".join([start, "", question, *lines, "", f"{how} If you do not know it, guess."])


def _end(asked: Asked, duration: float) -> str:
    """Return what is the same for all clips, but for the length: aspects, form, rules."""
    most = "one question" if asked.per_aspect == 1 else f"{asked.per_aspect} questions"
    aspects = [f"- {name}: {description}" for name, description in asked.aspects.items()]
    return "\n\n".join(
        [
            f"Write at most {most} about each of these aspects. Leave out an aspect that does not fit the clip.",
            "\n".join(aspects),
            _FORMS[asked.forms],
            f"{_RULES}\n- Write spans of time as `1.0-2.5 s`, in seconds from 0.0 to {seconds_text(duration)}.\n"
            f"- Write in the language with the code `{asked.language}` (ISO 639-1).",
            f"Answer with one JSON object of this shape and nothing else:\n{_SHAPE}",
        ]
    )
