"""What is wrong with a caption, as numbers: loops, refusals, another language. Whether it goes is for rules to say."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from core.errors import UserError

_LOOP = 4  # words
_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff"  # Japanese, Chinese, Thai, Lao: each character is a word here
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
    """Words, told apart by white space; of scripts without spaces a run of them counts as one."""
    return len(text.split())


def repetition(text: str) -> float:
    """Share of the words that lie in a run of 4 that was there before, 0 to 1.

    After the duplicate n-grams of Rae et al. 2021 (Gopher, arXiv 2112.11446, table A1), by words instead of characters,
    and without the first of the runs. A model that loops comes near 1, prose that names its subject again near 0.
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
    """Whether the text declines to describe the image, in the words that chat models use for it (English)."""
    return bool(_REFUSAL.search(text.replace("’", "'")))


def language_share(text: str, language: str) -> float:
    """Probability that `text` is in `language` (ISO 639-1), 0 to 1, by py3langid.

    It has 133 languages to choose from, so that English of three words may get no more than 0.1, and a name in another
    language takes much away; another language gets less than 0.01.

    Raises:
        UserError: It does not know the language.
    """
    return float(dict(_identifier().rank(text)).get(language, 0.0))


def check_language(language: str) -> None:
    """Refuse a language that is unknown.

    Raises:
        UserError: With what is valid.
    """
    known = _identifier().labels
    if language not in known:
        raise UserError(f"language {language!r} is not known; give a code of ISO 639-1, such as en, zh or de")


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
