"""Measure defects of captions: loops, refusals, the wrong language. Rules decide which captions are dropped."""

from __future__ import annotations

import re

from core.errors import UserError
from core.language import language_identifier

_LOOP = 4  # words in a run
_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff"  # Japanese, Chinese, Thai, Lao: each character counts as a word
_WORD = re.compile(f"[{_NO_SPACES}]|[^\\W{_NO_SPACES}]+")

_REFUSAL = re.compile(
    r"\b(i'?m sorry|i am sorry|i apologi[sz]e|sorry, (but )?i|as an ai\b|as a language model"
    r"|i (can ?no|can'?)t (help|assist|provide|describe|identify|see|view|comply|fulfil)"
    r"|i (am|'m) (unable|not able) to|unable to (provide|process|view|see|describe|assist)"
    r"|(no image|image (is|was) not) (was |has been )?(provided|attached|available|visible)"
    r"|please (provide|upload|share) (an|the|a clearer) image)",
    re.IGNORECASE,
)


def words(text: str) -> int:
    """Return the number of words, separated by white space; in scripts without spaces, a run counts as one word."""
    return len(text.split())


def word_list(text: str) -> list[str]:
    """Return the words of a text without case and punctuation; a character of a script without spaces is a word."""
    return _WORD.findall(text.casefold())


def repetition(text: str) -> float:
    """Return the share of words in a run of 4 words that occurred before, 0 to 1.

    After the duplicate n-grams of Rae et al. 2021 (Gopher, arXiv 2112.11446, table A1), but by words instead of
    characters, and without a run's first occurrence. A looping model gets nearly 1, prose that names its subject again
    nearly 0.
    """
    said = _WORD.findall(text.lower()) or list(text)
    seen: set[tuple[str, ...]] = set()
    again: set[int] = set()
    for start in range(len(said) - _LOOP + 1):
        run = tuple(said[start : start + _LOOP])
        if run in seen:
            again.update(range(start, start + _LOOP))
        seen.add(run)
    return len(again) / max(len(said), 1)


def refused(text: str) -> bool:
    """Return whether the text declines to describe the image, in the usual phrases of chat models (English only)."""
    return bool(_REFUSAL.search(text.replace("’", "'")))


def language_share(text: str, language: str) -> float:
    """Return the probability that `text` is in `language` (ISO 639-1), 0 to 1, by py3langid; 0 for unknown languages.

    py3langid distinguishes 133 languages, so three words of English may get only 0.1, and a foreign name lowers the
    value much. Text in another language gets less than 0.01.
    """
    identifier = language_identifier()
    best, share = identifier.classify(text)  # half of the time of the whole ranking, which gives the same number
    return float(share if best == language else dict(identifier.rank(text)).get(language, 0.0))


def check_language(language: str) -> None:
    """Check that py3langid knows a language.

    Raises:
        UserError: The language is unknown.
    """
    known = language_identifier().labels
    if language not in known:
        raise UserError(f"language {language!r} is not known; give a code of ISO 639-1, such as en, zh or de")
