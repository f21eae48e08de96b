"""Scores of short answers to questions about images and videos, against one or more references: 0 to 1 each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

ANLS_CUT = 0.5
"""Similarity below which ANLS is 0 (Biten et al. 2019, arXiv 1905.13648); 0.5 counts, as in the challenges' script."""

RELATIVE_ERROR = 0.05
"""Largest relative error of a number: Masry et al. 2022 (ChartQA), arXiv 2203.10244, section 5.1."""

LEAST_REFERENCES = 4
"""Least references for VQA accuracy: with fewer, an answer that equals all of them would score below 1."""

_NUMBERS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_CONTRACTIONS = (
    "ain't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's"
    " how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't"
    " needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll"
    " somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd"
    " there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're"
    " what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't"
    " would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've"
).split()
_WITH_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTIONS}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"(?<=\d),(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")


def anls(answer: str, references: Sequence[str], cut: float = ANLS_CUT) -> float:
    """Return the normalised Levenshtein similarity to the most similar reference, or 0 below the cut.

    Case is folded, and white space is one space. DocVQA and InfographicVQA take its mean over all questions (ANLS).
    VideoLLaMA3's evaluation has no cut (`cut=0`).
    """
    best = max((_similarity(_folded(answer), _folded(reference)) for reference in references), default=0.0)
    return best if best >= cut else 0.0


def relaxed_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer is right by any reference, else 0 (ChartQA).

    A number is right within 5 %; `12%` is 0.12. Other answers must be equal after folding case and white space.
    """
    return float(any(_is_right(answer, reference) for reference in references))


def vqa_accuracy(answer: str, references: Sequence[str]) -> float | None:
    """Return the accuracy of VQA (Antol et al. 2015, arXiv 1505.00468), or None with less than four references.

    It is min(n / 3, 1), where n of the other references equal the answer, averaged over leaving out each reference.
    All are normalised first (`normalised`).
    """
    if len(references) < LEAST_REFERENCES:
        return None
    said, right = normalised(answer), [normalised(reference) for reference in references]
    equal = sum(reference == said for reference in right)
    return sum(min((equal - (reference == said)) / 3, 1.0) for reference in right) / len(right)


def normalised(answer: str) -> str:
    """Normalise an answer as VQA's evaluation does (github.com/GT-Vision-Lab/VQA, vqaEval.py).

    Punctuation goes: a mark becomes a space, or nothing if it stands beside a space somewhere or the answer has a comma
    between digits; full stops go unless a digit follows. Case is folded, articles go, zero to ten become digits, and
    contractions get their apostrophe (`dont`).
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    joins = _DIGIT_COMMA.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if joins or beside_space else " ")
    words = [_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", out).lower().split()]
    return " ".join(_WITH_APOSTROPHES.get(word.replace("'", ""), word) for word in words if word not in _ARTICLES)


def _is_right(answer: str, reference: str) -> bool:
    said, right = _number(answer), _number(reference)
    if said is None or right is None:
        return _folded(answer) == _folded(reference)
    return abs(said - right) <= RELATIVE_ERROR * abs(right)


def _number(text: str) -> float | None:
    """Return the value of `12`, `-1.5e3` or `12%`; None for other texts."""
    match = re.fullmatch(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%?)\s*", text, re.IGNORECASE | re.ASCII)
    if match is None:
        return None
    value = float(match[1]) / (100 if match[2] else 1)
    return value if math.isfinite(value) else None


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _similarity(a: str, b: str) -> float:
    """Return 1 - edit distance / longer length; 1 for two empty texts."""
    longest = max(len(a), len(b))
    return 1 - _edit_distance(a, b) / longest if longest else 1.0


def _edit_distance(a: str, b: str) -> int:
    above = list(range(len(b) + 1))
    for number, character in enumerate(a, 1):
        row = [number]
        for at, other in enumerate(b):
            row.append(min(above[at + 1] + 1, row[at] + 1, above[at] + (character != other)))
        above = row
    return above[-1]
