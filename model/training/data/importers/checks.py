"""Check the records of an import: what makes one a bad one, and what is only counted."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

from core.boxes import to_pixels
from core.errors import BadSampleError
from core.records import Record, Turn
from model.training.data.conversations import learnable_range

SLACK = 1.0
"""Seconds that a span may end behind its film: published lengths are rounded, or those of another copy."""

_LANGUAGES_FIRST, _LANGUAGES_EVERY = 200, 50  # all of the first 200 records, then every 50th: it is slow
_LANGUAGE_CHARACTERS = 400


def check(record: Record) -> list[str]:
    """Return what is noteworthy about a record that can be learned.

    Raises:
        BadSampleError: It cannot: an answer without words, roles out of order, boxes or spans outside of their medium.
    """
    for number, turn in enumerate(record.turns):
        if turn.role == "assistant" and not turn.text.strip():
            raise BadSampleError(f"empty answer: turn {number}")
    shown = {part.media for turn in record.turns for part in turn.parts}
    if not record.is_stream and (hidden := [medium.key for medium in record.media if medium.key not in shown]):
        raise BadSampleError(f"a medium in no turn: {hidden[0]}")
    notes = [*_check_order(record)]
    for number, turn in enumerate(record.turns):
        notes += _check_places(record, turn, number)
        if turn.role == "user" and not turn.text.strip():
            notes.append("a question without words")
    return sorted({*notes, *(f"{medium.type} missing" for medium in record.media if medium.present is False)})


def _check_order(record: Record) -> list[str]:
    roles = [turn.role for turn in record.turns]
    if record.is_stream:
        times = [turn.time for turn in record.turns if turn.time is not None]
        if any(later < earlier for earlier, later in pairwise(times)):
            raise BadSampleError("times go backwards: sort the turns of a stream by time")
        if "assistant" not in roles:
            raise BadSampleError("no answer: a stream in which nobody answers")
        return []
    try:
        first, end = learnable_range(roles)
    except BadSampleError as error:
        raise BadSampleError(f"roles out of order: {error}") from error
    notes = ["answers before the first question, which a training leaves out"] if first else []
    if end < len(roles):
        notes.append("questions after the last answer, which a training leaves out")
    if any(role == before for before, role in pairwise(roles[first:end])):
        notes.append("two turns of one role in a row")
    return notes


def _check_places(record: Record, turn: Turn, number: int) -> list[str]:
    notes = []
    for region in turn.regions:
        medium = record.medium(region.media)
        if medium.width and medium.height:
            to_pixels(region.box, region.system, medium.width, medium.height)
    for span in turn.spans:
        medium = record.medium(span.media)
        length = medium.end if medium.clock == "film" else medium.length
        if length is not None and span.end > length + SLACK:
            where = f"turn {number} has {span.start:g}-{span.end:g} s of {length:g} s"
            raise BadSampleError(f"span outside of the film: {where}")
        if length is not None and span.end > length:
            notes.append(f"a span that ends up to {SLACK:g} s behind its film")
    return notes


@dataclass
class Tally:
    """What is counted over all records: duplicates, languages, lengths.

    Attributes:
        count_tokens: Number of tokens of a text; None: not counted.
    """

    count_tokens: Callable[[str], int] | None = None
    characters: array[int] = field(default_factory=lambda: array("Q"))
    tokens: array[int] = field(default_factory=lambda: array("Q"))
    languages: Counter[str] = field(default_factory=Counter)
    _questions: array[int] = field(default_factory=lambda: array("Q"))  # 8 bytes a record, in place of the texts

    def add(self, record: Record) -> None:
        """Count one record."""
        text = "\n".join(turn.text for turn in record.turns)
        number = len(self.characters)
        self.characters.append(len(text))
        if self.count_tokens:
            self.tokens.append(self.count_tokens(text))
        if text.strip() and (number < _LANGUAGES_FIRST or number % _LANGUAGES_EVERY == 0):
            import py3langid

            self.languages[py3langid.classify(text[:_LANGUAGE_CHARACTERS])[0]] += 1
        self._questions.append(_question_hash(record))

    def duplicates(self) -> tuple[int, tuple[int, int] | None]:
        """Return how many records repeat media and question of an earlier one, and the numbers of one such pair."""
        import numpy as np

        hashes = np.frombuffer(self._questions, np.uint64)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if not len(same):
            return 0, None
        return len(same), (int(order[same[0]]), int(order[same[0] + 1]))


def quantiles(values: array[int]) -> dict[str, int]:
    """Return the median, the 90 % quantile, the largest and the sum of some lengths."""
    import numpy as np

    if not len(values):
        return {}
    numbers = np.frombuffer(values, np.uint64)
    median, high = np.quantile(numbers, [0.5, 0.9], method="lower").tolist()
    return {"median": int(median), "p90": int(high), "largest": int(numbers.max()), "sum": int(numbers.sum())}


def _question_hash(record: Record) -> int:
    """Hash the media with their clips, and the text of all questions."""
    media = [f"{medium.path}\0{medium.start}\0{medium.end}" for medium in record.media]
    questions = [turn.text for turn in record.turns if turn.role == "user"]
    content = "\0\0".join([*media, "", *questions]).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
