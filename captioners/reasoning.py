"""Find reasoning in an answer, by the marks that today's open models and servers put around it.

A caption may mention the same marks, and a lost caption is worse than a mark that stays. So the more ambiguous a mark
is, the fewer the positions where it counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import NamedTuple

from captioners.prose import Prose


class Counts(Enum):
    """Where marks count. In quotes, opening marks and closing marks without an opening one do not count."""

    TOKEN = "everywhere"
    TAG = "everywhere but in the middle of a sentence"
    WORD = "the opening where the answer starts, or with its closing; a lone closing only where it ends a line"
    START = "the opening where the answer starts; the closing only behind it"
    PAIR = "both, or none"


class Marks(NamedTuple):
    """Patterns that open and close reasoning; THINK, WORD and ANY stand for tag names."""

    counts: Counts
    opening: str
    closing: str


_PREFIX = r"(?:\w{1,20}:|(?:inner|internal|model|deep)_|ant)?"
_THINK = r"think(?:ing)?(?:_process)?"
_WORD = r"thoughts?|(?:thought|reasoning)_process|reasoning|scratchpad|inner_monologue|chain_of_thought"
_START = r"analysis|reflection|rationale|reason|cot"
_MARKS = (
    Marks(Counts.TAG, r"<THINK(?:\s[^<>]{0,200})?>", r"</THINK\s*>"),  # DeepSeek, Qwen, GLM; Seed-OSS: <seed:think>
    Marks(Counts.TOKEN, r"◁ANY▷", r"◁/ANY▷"),  # Kimi-VL
    Marks(  # OpenThinker: <|begin_of_thought|>; Cohere: <|START_THINKING|>
        Counts.TOKEN,
        r"<\|(?:(?:begin|start)_?(?:of_?)?ANY|ANY(?:_(?:start|begin))?)\|>",
        r"<\|(?:end_?(?:of_?)?ANY|/ANY|ANY_end)\|>",
    ),
    Marks(Counts.TOKEN, r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    Marks(Counts.TOKEN, r"<unused94>(?:thought)?", r"<unused95>"),  # MedGemma
    Marks(  # gpt-oss; Gemma: <|channel>thought
        Counts.TOKEN,
        r"(?:<\|start\|>assistant)?<\|channel\|?>\s*(?:analysis|commentary|thought)[^<]{0,80}(?:<\|message\|>)?",
        r"(?:<\|start\|>assistant)?<\|channel\|>\s*final\s*(?:<\|constrain\|>\s*\w+\s*)?<\|message\|>|<channel\|>",
    ),
    Marks(Counts.WORD, r"<WORD(?:\s[^<>]{0,200})?>", r"</WORD\s*>"),  # Gemini: <thought>
    Marks(Counts.WORD, r"(?-i:\[THINK\])", r"(?-i:\[/THINK\])"),  # Magistral
    Marks(Counts.START, rf"<(?:{_START})>", rf"</(?:{_START})\s*>"),
    Marks(Counts.START, r"\Aanalysis(?-i:(?=[A-Z][\w']*\s))", r"assistantfinal"),  # gpt-oss without control tokens
    Marks(Counts.PAIR, r"\Aanalysis(?-i:(?=[A-Z]))", r"assistantfinal"),
    Marks(Counts.PAIR, r"\Ahere(?:'s| is) my thought process:", r"here(?:'s| is) my response:"),  # Granite
    Marks(Counts.PAIR, r"\Athinking\.\.\.[ \t]*\n", r"\n\.\.\.done thinking\.?"),  # Ollama
    Marks(Counts.PAIR, r"<details\s+type=[\"']reasoning[\"'][^<>]{0,200}>", r"</details\s*>"),  # Open WebUI
    Marks(Counts.PAIR, r"(?:&lt;|＜|< )ANY ?(?:&gt;|＞|>)", r"(?:&lt;|＜|< ?)/ ?ANY ?(?:&gt;|＞|>)"),
    Marks(Counts.PAIR, r"\[(?:think|thinking)\]", r"\[/(?:think|thinking)\]"),
    Marks(Counts.PAIR, r"(?!)", r"<(?:THINK|WORD)\s*/>"),
)
_BY_ANY = len(_MARKS) - 1
"""Number of the mark that closes reasoning opened by any other mark."""


class Mark(NamedTuple):
    """A mark in a text: its match, its number in `_MARKS`, and whether it opens reasoning."""

    match: re.Match[str]
    marks: int
    opens: bool

    @property
    def counts(self) -> Counts:
        return _MARKS[self.marks].counts


def without_reasoning(text: str, more: tuple[str, ...]) -> tuple[str, bool, bool]:
    """Return the answer without reasoning, whether there was reasoning, and whether the answer ends within it.

    Reasoning is the text between an opening and a closing mark, before a closing mark without an opening one (which
    the chat template wrote), and after an opening mark that is never closed.

    Args:
        text: The answer, without leading white space and without end tokens at its end.
        more: Further tag names.
    """
    prose, marks = Prose(text), list(_marks(text, more))
    last = {mark.marks: mark.match.start() for mark in marks if not mark.opens}
    kept: list[str] = []
    behind = len(text.rstrip())
    position, inside, reasoned = 0, -1, False
    for mark in marks:
        start, end = mark.match.span()
        if inside >= 0:
            if _closes(mark, inside):
                position, inside = end, -1
        elif mark.opens and _opens(mark, prose, last.get(mark.marks, -1) >= end):
            kept.append(text[position:start])
            inside, reasoned = mark.marks, True
        elif not mark.opens and _closes_alone(mark, prose):
            kept.append(text[position:start])
            if end < behind or (not reasoned and text[start - 1 : start] == "\n"):  # else only the mark is removed
                kept.clear()
                reasoned = True
            position = end
    kept += [] if inside >= 0 else [text[position:]]
    return "".join(kept), reasoned, inside >= 0


def is_mark(token: str) -> bool:
    """Return whether a tokenizer's token is a mark around reasoning, or part of one."""
    return token in ("<|channel|>", "<|message|>", "<|start|>", "<|end|>") or bool(_pattern(()).search(token))


def _closes(mark: Mark, inside: int) -> bool:
    if mark.opens:
        return False
    same = _MARKS[mark.marks].closing == _MARKS[inside].closing
    return same or mark.marks == _BY_ANY or mark.counts in (Counts.TOKEN, Counts.TAG)


def _opens(mark: Mark, prose: Prose, closed: bool) -> bool:
    """Return whether an opening mark counts; `closed`: its closing mark follows."""
    starts = mark.match.start() == 0
    if mark.counts is Counts.TOKEN:
        return not prose.quotes(mark.match)
    if mark.counts is Counts.START:
        return starts
    if not closed and not (starts and mark.counts is Counts.WORD) and mark.counts is not Counts.TAG:
        return False
    unfinished = not prose.behind(mark.match) and prose.follows_words(mark.match)
    return starts or not (prose.mentions(mark.match) or unfinished)


def _closes_alone(mark: Mark, prose: Prose) -> bool:
    """Return whether a closing mark without an opening one counts: it must end a line or stand between sentences."""
    if mark.counts is Counts.TOKEN:
        return not prose.quotes(mark.match)
    if mark.counts not in (Counts.TAG, Counts.WORD) or prose.quotes(mark.match) or prose.follows_words(mark.match):
        return False
    behind = prose.behind(mark.match)
    begins = behind in "*#" or (behind.isalpha() and not behind.islower())
    return behind in ("", "\n") or (mark.counts is Counts.TAG and begins)


def _marks(text: str, more: tuple[str, ...]) -> Iterator[Mark]:
    for match in _pattern(more).finditer(text):
        group = str(match.lastgroup)
        yield Mark(match, int(group[1:]), group[0] == "o")


@cache
def _pattern(more: tuple[str, ...]) -> re.Pattern[str]:
    think = "|".join([_THINK, *map(re.escape, more)])
    names = {"THINK": think, "WORD": _WORD, "ANY": f"{think}|{_WORD}|{_START}"}

    def filled(mark: str) -> str:  # literal words of a mark are in lower case, or in (?-i:…) with brackets
        return re.sub(r"(?<!\[)(?<!\[/)(THINK|WORD|ANY)", lambda name: f"{_PREFIX}(?:{names[name[0]]})", mark)

    closings = [f"(?P<c{number}>{filled(marks.closing)})" for number, marks in enumerate(_MARKS)]
    openings = [f"(?P<o{number}>{filled(marks.opening)})" for number, marks in enumerate(_MARKS)]
    return re.compile("|".join([*closings, *openings]), re.IGNORECASE)
