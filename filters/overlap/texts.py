"""An index of a benchmark's texts, and the search for them in any other text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from filters.overlap.words import LONG, SHORT, is_distinct, words_of

FREQUENT = 10
"""An n-gram in more rows of the benchmark than this is a part of its prompts, and never counts (GPT-3's number)."""

Gram = tuple[str, ...]


class TextMatch(NamedTuple):
    """A row of the benchmark whose text was found.

    Attributes:
        row: Number of the row, as it was added.
        share: Share of the n-grams of that text that were found, above 0 and up to 1.
        at: The first words that were found.
    """

    row: int
    share: float
    at: str


class TextMatches(NamedTuple):
    """What was found in the texts of one row of the data.

    Attributes:
        matches: The rows of the benchmark, best share first, then by their order.
        generic: Rows of the benchmark whose whole question is a turn or line, but is too generic to count alone.
    """

    matches: Sequence[TextMatch]
    generic: frozenset[int]


class TextIndex:
    """The texts of a benchmark: few rows, all in memory. What they are searched in is streamed.

    A row has variants: its question; with its options; with its answer; with both. Each has n-grams: all of 13 words if
    it is that long, else one of all its words. An n-gram counts if four of its words are not generic, and if it is in
    at most ten rows. It is found in a text that contains it; one of fewer than eight words only where it is a whole
    turn or a whole line of one.
    """

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        """Build the index. Each row has the variants of its text; the first is the question."""
        owners: dict[Gram, dict[tuple[int, int], None]] = defaultdict(dict)
        self._counts: dict[tuple[int, int], int] = {}
        self._questions: dict[Gram, set[int]] = defaultdict(set)
        for row, variants in enumerate(rows):
            for number, text in enumerate(dict.fromkeys(variants)):
                words = tuple(words_of(text))
                if not number and words:
                    self._questions[words].add(row)
                grams = {gram for gram in grams_of(words) if is_distinct(gram)}
                self._counts[row, number] = len(grams)
                for gram in grams:
                    owners[gram][row, number] = None
        self._short: dict[Gram, list[tuple[int, int]]] = {}
        # By the first words, then by the length: so many n-grams that begin alike cost no more than one.
        self._long: dict[str, dict[int, dict[Gram, list[tuple[int, int]]]]] = defaultdict(lambda: defaultdict(dict))
        for gram, found in owners.items():
            if len({row for row, _ in found}) > FREQUENT:
                self._forget(found)
            elif len(gram) < SHORT:
                self._short[gram] = list(found)
            else:
                self._long[" ".join(gram[:SHORT])][len(gram)][gram] = list(found)

    def _forget(self, owners: dict[tuple[int, int], None]) -> None:
        for owner in owners:
            self._counts[owner] -= 1

    def search(self, texts: Sequence[str]) -> TextMatches:
        """Search the texts of one row of the data: its turns in their order, or its captions.

        n-grams may go on from one text into the next, as from a question to its answer.
        """
        found: dict[tuple[int, int], dict[Gram, None]] = defaultdict(dict)
        generic: set[int] = set()
        words: list[str] = []
        for text in texts:
            turn = words_of(text)
            words += turn
            lines = [tuple(words_of(line)) for line in text.splitlines()] if "\n" in text else []
            for line in dict.fromkeys([tuple(turn), *lines]):
                for owner in self._short.get(line, ()):
                    found[owner][line] = None
                generic |= self._questions.get(line, frozenset())
        for gram, owners in self._inside(words):
            for owner in owners:
                found[owner][gram] = None
        matches = self._ranked(found)
        return TextMatches(matches, frozenset(generic - {match.row for match in matches}))

    def _inside(self, words: Sequence[str]) -> Iterator[tuple[Gram, list[tuple[int, int]]]]:
        """Yield the n-grams of at least eight words that stand in the words, with their owners."""
        if not self._long:
            return
        for start in range(len(words) - SHORT + 1):
            for length, grams in self._long.get(" ".join(words[start : start + SHORT]), {}).items():
                gram = tuple(words[start : start + length])
                if gram in grams:
                    yield gram, grams[gram]

    def _ranked(self, found: dict[tuple[int, int], dict[Gram, None]]) -> list[TextMatch]:
        best: dict[int, TextMatch] = {}
        for (row, number), grams in sorted(found.items()):
            share = len(grams) / self._counts[row, number]
            if row not in best or share > best[row].share:
                best[row] = TextMatch(row, share, " ".join(next(iter(grams))))
        return sorted(best.values(), key=lambda match: (-match.share, match.row))


def grams_of(words: Gram) -> list[Gram]:
    """Return the n-grams of a text: all of `LONG` words, or one of all words of a shorter text."""
    if len(words) <= LONG:
        return [words] if words else []
    return [words[start : start + LONG] for start in range(len(words) - LONG + 1)]
