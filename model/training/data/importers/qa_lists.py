"""VideoChat's form: a list `QA` of questions `q` and answers `a`, each perhaps with an instruction `i`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from core.errors import BadSampleError
from core.records import Medium, Turn
from model.training.data.importers.turns import assistant, list_of_turns, plain, text_of, user


class Pair(NamedTuple):
    """A question, its answer and its instruction."""

    question: str
    answer: str
    instruction: str = ""


def pairs_of(entry: Mapping[str, Any]) -> list[Pair]:
    """Return the pairs of an entry, in their order.

    Raises:
        BadSampleError: There is none, or a question or answer is no text.
    """
    listed = list_of_turns(entry.get("QA"))
    if not listed:
        raise BadSampleError("no conversation: `QA` is empty")
    return [Pair(text_of(pair, "q"), text_of(pair, "a"), text_of(pair, "i", "")) for pair in listed]


def turns_of_pairs(pairs: list[Pair], medium: Medium | None) -> list[Turn]:
    """Return the turns: the medium before the first question."""
    turns = []
    for number, pair in enumerate(pairs):
        shown = [medium] if medium and not number else []
        turns += [user(*shown, pair.question), assistant(pair.answer)]
    return turns


def system_turn(text: str) -> list[Turn]:
    """Return a system message, or none if there is no text."""
    return [plain("system", text)] if text else []
