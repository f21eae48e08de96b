"""Drop questions about a clip that cannot be used, and count them by the reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from captioners.films.question_answer import WrittenQuestion, WrittenQuestions
from captioners.films.question_prompts import OPTIONS, Asked, Form
from captioners.markup import is_blank
from captioners.quality_checks import language_share, word_list
from core.choices import choice_of
from core.control_tokens import find_control_tokens
from core.time_spans import spans_of

DROPPED = {
    "malformed_questions": "without the parts of a question, or of another aspect or form than those asked for",
    "empty_questions": "without a question or an answer",
    "unanswerable_questions": f"whose options are not {OPTIONS} different ones, or whose answer is none of them",
    "control_token_questions": "with control tokens, such as <image>",
    "foreign_questions": "that are not in the expected language",
    "leaking_questions": "that mention the caption or frames, or contain their answer",
    "mistimed_questions": "that speak of a time outside of the clip",
    "duplicate_questions": "that ask nearly the same as an earlier one of the clip",
    "surplus_questions": "beyond the number per aspect",
}
"""Columns with the number of dropped questions, in the order in which the reasons are looked for."""

_LEAST_SHARE = 0.01  # of the expected language, as in `default_rules` of captioners/recaption.py
_ALIKE = 0.8  # share of the words of two questions that both have
_TOLERANCE = 0.05  # seconds: times are written with one decimal
_LABEL = re.compile(r"\(?([A-Da-d])[.):]\s*(?=\S)")
_SOURCE = r"(?:caption|description|summary|transcript|narration|annotation|metadata|list of events|event list)s?"
_LEAK = re.compile(
    rf"\b(?:the|this|that|these|given|provided|above|your|its|video|clip)\s+(?:video |clip |dense |text )?{_SOURCE}\b"
    r"|\b(?:according to|based on|as (?:given|described|mentioned|stated) in) the (?:text|events?)\b"
    r"|\b(?:given|provided) (?:text|events?|frames?|images?|pictures?)\b|\bin the text\b(?! (?:on|of|at|above|below))"
    r"|\b(?:in|from|across|of|between) (?:the|these|all|both) (?:\w+ )?(?:frames|images)\b"
    r"|\b(?:first|second|third|last|final|next|previous) (?:video )?frame\b|\bframes? (?:#\s*)?\d",
    re.IGNORECASE,
)
_SHORT = frozenset({"yes", "no"})


class ClipQuestion(NamedTuple):
    """A question about a clip, as it is stored.

    Attributes:
        aspect: Name of the aspect.
        form: `open` or `choice`.
        question: The question.
        answer: The right answer; for a choice, the text of the right option.
        options: The options in the order in which they are shown; empty for an open question.
        answer_index: Which option is right, from 0; None for an open question.
        blind: Whether a model gives this answer without the clip; None: not checked.
    """

    aspect: str
    form: Form
    question: str
    answer: str
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    blind: bool | None = None


def sound_questions(
    written: WrittenQuestions, asked: Asked, id_: int, duration: float
) -> tuple[list[ClipQuestion], Counter[str]]:
    """Return the questions that can be used, and the number of the others by their column of `DROPPED`.

    Args:
        written: What the model wrote.
        asked: What it was asked for.
        id_: Id of the clip; the order of options depends on it.
        duration: Length of the clip in seconds.
    """
    kept: list[ClipQuestion] = []
    dropped = Counter(malformed_questions=written.malformed)
    names = {_plain_name(name): name for name in asked.aspects}
    for entry in written.questions:
        name = names.get(_plain_name(entry.aspect))
        if name is None or asked.forms not in (entry.form, "both"):
            dropped["malformed_questions"] += 1
            continue
        question = _stored(entry, name, id_)
        reason = _fault(entry, question, asked.language, duration) or _place(question, kept, asked.per_aspect)
        if reason:
            dropped[reason] += 1
        elif question:
            kept.append(question)
    return kept, dropped


def _stored(entry: WrittenQuestion, aspect: str, id_: int) -> ClipQuestion | None:
    """Return a question as it is stored, with its options in order; None if its answer is none of its options."""
    if entry.form == "open":
        return ClipQuestion(aspect, "open", entry.question, entry.answer)
    options = _without_labels(entry.options)
    distinct = {tuple(word_list(option)) or option for option in options}
    if len(options) != OPTIONS or len(distinct) != OPTIONS or any(map(is_blank, options)):
        return None
    answer = _right_option(entry, options)
    if answer is None:
        return None
    shuffled = shuffle(options, id_, entry.question)
    return ClipQuestion(aspect, "choice", entry.question, answer, shuffled, shuffled.index(answer))


def _right_option(entry: WrittenQuestion, options: Sequence[str]) -> str | None:
    """Return the option that an answer names; None if it names none, or one by its text and another by its letter.

    The prompt asks for the option's text, so an answer that is exactly an option means it, even if it is a letter too.
    """
    if entry.answer in entry.options:
        return options[entry.options.index(entry.answer)]
    letters = {chr(ord("A") + number): option for number, option in enumerate(options)}
    named = letters.get(choice_of(entry.answer, letters) or "")
    equal = [option for option in options if word_list(option) == word_list(entry.answer)]
    return named if not equal or equal == [named] else None


def shuffle(options: Sequence[str], id_: int, question: str) -> tuple[str, ...]:
    """Return options in an order that depends on the clip, the question and their texts only.

    Each order is equally probable, so right answers are balanced, wherever the model has put them.
    """

    def rank(option: str) -> bytes:
        return hashlib.blake2b(json.dumps([id_, question, option]).encode(), digest_size=16).digest()

    return tuple(sorted(options, key=rank))


def _without_labels(options: Sequence[str]) -> tuple[str, ...]:
    """Return options without `A. `, `(B) ` before them, if all have them in order."""
    labels = [_LABEL.match(option) for option in options]
    if "".join(label[1].upper() if label else " " for label in labels) != "ABCDEFGH"[: len(options)]:
        return tuple(options)
    return tuple(option[label.end() :] for option, label in zip(options, labels, strict=True) if label)


def _fault(entry: WrittenQuestion, question: ClipQuestion | None, language: str, duration: float) -> str | None:
    """Return why a question cannot be used, whatever the others are; None if it can."""
    texts = (entry.question, entry.answer, *entry.options)
    faults: Mapping[str, Callable[[], bool]] = {
        "empty_questions": lambda: not (word_list(entry.question) and word_list(entry.answer)),
        "unanswerable_questions": lambda: question is None,
        "control_token_questions": lambda: any(map(find_control_tokens, texts)),
        "foreign_questions": lambda: language_share(f"{entry.question} {entry.answer}", language) < _LEAST_SHARE,
        "leaking_questions": lambda: _leaks(question, texts),
        "mistimed_questions": lambda: any(end > duration + _TOLERANCE for _, end in _spans(texts)),
    }
    return next((reason for reason, is_so in faults.items() if is_so()), None)


def _leaks(question: ClipQuestion | None, texts: Sequence[str]) -> bool:
    """Return whether texts speak of what the model was shown, or a question contains its answer."""
    if question is None or any(map(_LEAK.search, texts)):
        return True
    asked, answer = word_list(question.question), word_list(question.answer)
    if not answer or _SHORT.issuperset(answer):
        return False
    return any(asked[at : at + len(answer)] == answer for at in range(len(asked) - len(answer) + 1))


def _spans(texts: Sequence[str]) -> Iterator[tuple[float, float]]:
    for text in texts:
        yield from spans_of(text)


def _place(question: ClipQuestion | None, kept: Sequence[ClipQuestion], per_aspect: int) -> str | None:
    """Return why a question has no place beside those that are kept; None if it has one."""
    assert question is not None
    if any(_are_alike(question.question, other.question) for other in kept):
        return "duplicate_questions"
    if sum(other.aspect == question.aspect for other in kept) >= per_aspect:
        return "surplus_questions"
    return None


def _are_alike(first: str, second: str) -> bool:
    """Return whether two questions have the same words, or 80 % of the words of both in common (Jaccard)."""
    ours, theirs = set(word_list(first)), set(word_list(second))
    return len(ours & theirs) >= _ALIKE * len(ours | theirs)


def _plain_name(name: str) -> str:
    return "_".join(word_list(name.replace("_", " ")))
