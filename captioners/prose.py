"""Detect where a caption only mentions a mark: a T-shirt that says "<think>", a slide about the token <eos>."""

from __future__ import annotations

import re
from bisect import bisect_right

_QUOTED = re.compile(
    r"(?<!\w)\"(?=\S)[^\"\n]{1,200}\"(?!\w)|(?<!\w)'(?=\S)[^'\n]{1,200}(?<=\S)'(?!\w)|`[^`\n]{1,200}`"
    r"|\([<\[][^()\n]{1,80}[>\]]\)|“[^”\n]{1,200}”|‘[^’\n]{1,200}’|«[^»\n]{1,200}»|„[^“”\n]{1,200}[“”]|「[^」\n]{1,200}」|『[^』\n]{1,200}』"
)
_BEHIND = re.compile(r"([ \t]*)(.?)", re.DOTALL)
_SENTENCE_ENDS = "\n.!?…。！？"
_CLOSES = "\"'”’»)]*"


class Prose:
    """A text whose marks are classified by their context."""

    def __init__(self, text: str) -> None:
        self._text = text
        spans = [quote.span() for quote in _QUOTED.finditer(text)]
        self._starts, self._ends = [start for start, _ in spans], [end for _, end in spans]

    def mentions(self, mark: re.Match[str]) -> bool:
        """Return whether the mark is in quotes, or has words of the same sentence on both sides."""
        return self.quotes(mark) or (self.follows_words(mark) and self._goes_on(mark))

    def quotes(self, mark: re.Match[str]) -> bool:
        """Return whether the mark is in quotes that open and close on its line."""
        line = bisect_right(self._starts, mark.start()) - 1
        return line >= 0 and self._starts[line] < mark.start() and mark.end() < self._ends[line]

    def follows_words(self, mark: re.Match[str]) -> bool:
        """Return whether words of the same sentence and a space precede the mark."""
        before = self._text[max(0, mark.start() - 40) : mark.start()]
        words = before.rstrip(" \t")
        return words != before and words.rstrip(_CLOSES)[-1:] not in ("", *_SENTENCE_ENDS)

    def behind(self, mark: re.Match[str]) -> str:
        """Return the first character after the mark that is not a space or tab; empty at the end of the text."""
        match = _BEHIND.match(self._text, mark.end())
        return match[2] if match else ""

    def _goes_on(self, mark: re.Match[str]) -> bool:
        match = _BEHIND.match(self._text, mark.end())
        if match is None or not match[2]:
            return False
        if not match[1]:
            return match[2] in ",.;:!?)]}'’…"
        return match[2].islower() or match[2].isdigit() or match[2] in "([{&+=/-–—→|"
