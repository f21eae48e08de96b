"""Normalise texts to words, and say which words are too generic to tell one question from another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LONG = 13
"""Words of an n-gram of a long text, as in GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C)."""

SHORT = 8
"""Fewest words of a text that is found inside of another text, as in GPT-3; a shorter one must be a whole turn."""

DISTINCT = 4
"""Fewest words of an n-gram that are not generic. With fewer it never counts alone."""

GENERIC = frozenset(
    """
    about above all an and answer answers any appear appears are as at based be below best between by can caption
    choice choices choose color colour content contents correct correctly depicted describe description detail details
    detailed directly do does doing each explain explanation first following for from give given has have he her here
    his how identify if image images in into is it its kind last letter letters list look main many me more most much
    name not number object objects of on one only option options or other out people person photo photograph picture
    please pictured presented provide provided question questions reason see seen select she short should show showing
    shown shows single some summarize tell than that the their them there these they thing things this those to two type
    using video was we were what when where which who whose why will with word words would write you your
    """.split()
)
"""Words of which generic questions and prompts of benchmarks consist: "What is in the image? Answer with the option's
letter from the given choices directly." """

_MARK = re.compile(r"<(?:image|video)[^<>]{0,20}>")
# A run of letters and digits. A character of a script without spaces is a word of its own.
_SOLID = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_SOLID}]|[^\W_{_SOLID}]+")
_SINGLE = frozenset("abcdefgh")


def words_of(text: str) -> list[str]:
    """Return the words of a text, normalised.

    Unicode's NFKC, without case, punctuation and placeholders (`<image>`). The single letters a to h are left out: they
    are the marks of options, which one writes `A.` and another `(a)` or not at all, and the article.
    """
    plain = unicodedata.normalize("NFKC", _MARK.sub(" ", text)).casefold()
    return [word for word in _WORD.findall(plain) if word not in _SINGLE]


def is_distinct(words: Sequence[str]) -> bool:
    """Return whether at least `DISTINCT` different words are not generic, so that the words can be found alone."""
    return len({*words} - GENERIC) >= DISTINCT
