"""The option that an answer to a multiple-choice question names."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OPTION = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_ANSWER_IS = re.compile(
    r"\b(?:answer|(?:best|correct|right|final|my)\s+(?:option|choice))\b(?:\s+(?:is|would\s+be))?[\s:=*]*"
    r"(?:(?:option|choice)\s+)?",
    re.IGNORECASE,
)
_OPTION_IS = re.compile(r"\b(?:option|choice)\b[\s:=*]*", re.IGNORECASE)
_LETTER = r"[\"'(\[*]*([A-Z])(?![\w'’])"
_OTHER = r"(?:[B-HJ-Z](?![\w'’])|[AI](?![\w'’])(?!\s+(?!and\b|or\b)[a-z]))"
_NO_OTHER = rf"(?![\"'*).\]:]*\s*(?:,\s*(?:or\b|and\b)?|/|&|or\b|and\b)\s*[\"'(*]*{_OTHER})"
_CLOSED = r"(?=[\"'*]*(?:[.,):\]\n]|$|\s+(?:because|since|as|is)\b))"
_AT_START = re.compile(rf"\s*{_LETTER}{_NO_OTHER}{_CLOSED}")
_WITH_TEXT = re.compile(r"\W*([A-Za-z])\W+(\w.*)", re.DOTALL)
_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")


def options_of(question: str) -> dict[str, str]:
    """Return the options of a question by their letters: lines such as `(A) a cat`, `A. a cat`, `A) a cat`, `A: a cat`.

    MVBench writes the first form, Video-MME the second. Options begin at A and follow each other; if a question has
    several such lists, the last counts.
    """
    options: dict[str, str] = {}
    for first, second, text in _OPTION.findall(question):
        letter = first or second
        if letter == "A":
            options = {}
        if letter == chr(ord("A") + len(options)):
            options[letter] = text
    return options if len(options) > 1 else {}


def choice_of(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that an answer names, or None if it names none, or several.

    An answer names an option by (in this order) its letter or text after "answer is", "answer:", "best option" and
    the like (the last counts), by its letter alone (`B`, `(B)`, `B.`), by its text, by its letter at the beginning
    (`B) a boy`, `B a boy`), by its letter or text after "option" or "choice", or by the only letter in brackets.

    Args:
        answer: The answer of a model or a reference.
        options: Texts of the options by their letters. If there are none, any letter is an option.
    """
    starts = [match.end() for match in _ANSWER_IS.finditer(answer)][::-1]
    starts += [0, *[match.end() for match in _OPTION_IS.finditer(answer)][::-1]]
    for start in starts:
        if letter := _named(answer[start:], options):
            return letter
    bracketed = {letter for letter in _IN_BRACKETS.findall(answer) if _is_option(letter, options)}
    return bracketed.pop() if len(bracketed) == 1 else None


def _named(text: str, options: Mapping[str, str]) -> str | None:
    """Return the option that a text begins with or consists of."""
    if (match := _ALONE.fullmatch(text)) and _is_option(match[1].upper(), options):
        return match[1].upper()
    equal = [letter for letter, option in options.items() if _folded(option) == _folded(text)]
    if len(equal) == 1:  # before a letter at the start: "B. Smith" may be the text of option A
        return equal[0]
    if (match := _AT_START.match(text)) and _is_option(match[1], options):
        return match[1]
    if (match := _WITH_TEXT.fullmatch(text)) and _folded(match[2]) == _folded(options.get(match[1].upper(), "")):
        return match[1].upper()
    return None


def _is_option(letter: str, options: Mapping[str, str]) -> bool:
    return letter in options or not options


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!\"'()*")
