"""Time spans as text, and back: how answers and captions name times (docs/training-data.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from core.errors import BadSampleError

Span = tuple[float, float]
"""Start and end, in seconds."""

_DASH = "\u2010-\u2015\u2212~"  # hyphen to horizontal bar, minus, tilde; besides "-"
_CLOCK = r"(?:[0-9]{1,2}:[0-5][0-9]|[0-9]{1,3}):[0-5][0-9](?:\.[0-9]+|,[0-9]{3}(?![0-9:]))?"
_MINUTES = r"[0-9]{1,3}\s?m(?:in(?:ute)?s?)?\s?[0-9]{1,2}(?:\.[0-9]+)?(?=\s?s)"
_TIME = rf"(?![12][0-9]{{2}}0s\b)(?:{_CLOCK}|{_MINUTES}|[0-9]+(?:\.[0-9]+)?)"  # not the 1990s
_UNIT = r"\s*s(?:ec(?:ond)?s?)?\b"
_TO = rf"(?:-{{1,2}}>|\u2192|[{_DASH}-]|to\b|until\b|till\b|through\b)"
_ABOUT = r"(?:about|around|approximately|roughly)"
# Not within a word, a date, a version or a negative number; not the decimals of "1,5".
_BEGIN = rf"(?<![A-Za-z0-9_-])(?<![0-9][:/.{_DASH}])(?:(?<![0-9],)|(?=[0-9]+\.[0-9]))"
_END = r"(?![.:]?[0-9])(?!\s*[ap]\.?m\b)"
_SPAN = re.compile(
    rf"(?:(?P<between>\bbetween\s+)|(?P<from>\bfrom\s+))?(?:\b(?P<unit1>seconds?)\s+)?{_BEGIN}(?P<start>{_TIME})"
    rf"(?:{_UNIT})?\s*(?(between)and\b|{_TO})\s*(?:{_ABOUT}\s+)?(?:(?P<unit2>second)\s+)?"
    rf"(?P<end>{_TIME})(?P<unit>\s*[\])]?\s*\(?{_UNIT})?{_END}",
    re.IGNORECASE,
)
_STARTS_ENDS = re.compile(  # "starts at 3 s and ends at 12 s", {"start": 3, "end": 12}
    rf"(?<![A-Za-z])(?:start|begin)[a-z]{{0,4}}(?P<is1>[^0-9]{{0,24}}){_BEGIN}(?P<start>{_TIME})(?:{_UNIT})?"
    rf"(?P<middle>[^0-9]{{0,60}}?)(?<![A-Za-z])(?:end|finish|stop)[a-z]{{0,4}}(?P<is2>[^0-9]{{0,24}})"
    rf"{_BEGIN}(?P<end>{_TIME})(?P<unit>{_UNIT})?{_END}",
    re.IGNORECASE,
)
_BARE_MIDDLE = re.compile(r"[^A-Za-z]*(?:and\b)?[^A-Za-z]*(?:the\b)?[^A-Za-z]*", re.IGNORECASE)
_PERCENTS = re.compile(
    rf"(?<![0-9.:])(?P<start>[0-9]{{2}})\s?%?\s*(?:{_TO}|and\b)\s*(?P<end>100|[0-9]{{2}})(?!{_UNIT})(?![.:]?[0-9])\s?%?",
    re.IGNORECASE,
)
_BESIDE_SPANS = re.compile(r"(?:[\s,;.()\[\]]|and\b|from\b)*", re.IGNORECASE)
_EDGE_MARKS = " \t\u00a0,;:.()[]*-" + "".join(map(chr, (*range(0x2010, 0x2016), 0x2212))) + "~"
_WORD = r"from|at|during|between"
_BEFORE_CAPTION = re.compile(
    rf"(?:[{re.escape(_EDGE_MARKS)}]|\b(?:{_WORD})\b|</?time>|(?<![0-9])[0-9]{{1,2}}[.)](?=\s))*", re.IGNORECASE
)
_AFTER_CAPTION = re.compile(rf"(?:\b(?:{_WORD})|<time>)$", re.IGNORECASE)


def span_text(spans: Sequence[Span]) -> str:
    """Write time spans in seconds, as in temporal grounding (arXiv 2501.13106, table 4): `1.0-2.0 s, 7.5-9.0 s`.

    Raises:
        BadSampleError: A span ends before it starts, starts before 0, or has no finite end.
    """
    for start, end in spans:
        if not 0 <= start <= end < math.inf:
            raise BadSampleError(f"span {start}-{end} s: give 0 <= start <= end")
    return ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in spans)


def seconds_text(seconds: float) -> str:
    """Write a length of at least 0 seconds with one decimal, or one digit other than 0: `7.2`, `0.04`, `0.0` for 0.

    A length below a millisecond is written as `0.001`.
    """
    text = f"{seconds:.1f}"
    return f"{max(seconds, 0.001):.1g}" if text == "0.0" and seconds > 0 else text


def spans_of(text: str, *, percent_of: float | None = None) -> list[Span]:
    """Return all time spans in a text, in seconds, within 0.05 s of what `span_text` was given.

    A span is two times with a dash, an arrow, `to`, `until`, `till` or `through` between them, or `between a and b`.
    It has a unit of seconds at its end (`1.0-2.5 s`, `from 1 to 2.5 seconds`, `[1 - 2.5] s`) or before its numbers
    (`seconds 1 to 2.5`, `second 1 to second 2`), or both times are clocks (`00:18 - 00:23`, `1:02:03.5`). Without
    either, both need decimals, and either the text is nothing but spans (`1.0 - 2.5`), or the span begins with `from`
    or `between` and ends a clause (`He sits from 1.0 to 2.5.`). Minutes are read as `1m05s` and `1 min 5 s`.

    `starts at 1 s and ends at 2 s` is a span, too, with a unit, clocks, or decimals as above; and so is
    `{"start": 1, "end": 2}`. A span that ends before it starts is ignored.

    Args:
        text: An answer.
        percent_of: A film's length in seconds. Then spans are two-digit percents of it, as VTimeLLM writes them (`from
            23 to 58`; arXiv 2311.18445), and nothing else is read.
    """
    return [span for _, _, span in _located(text, percent_of)]


def events_of(text: str) -> list[tuple[Span, str]]:
    """Return the time spans of dense captions, each with its caption, without punctuation at its ends.

    The caption of a span is the rest of its line (`1.0-2.0 s: A man sits.`, `A man sits (1.0-2.0 s).`). In a line with
    several spans it is what follows the span, or, if nothing follows the last one, what precedes it.
    """
    events = []
    for line in text.splitlines():
        located = _located(line)
        if len(located) == 1:
            begin, end, span = located[0]
            events.append((span, f"{_caption(line[:begin])} {_caption(line[end:])}".strip()))
            continue
        edges = [0, *(edge for begin, end, _ in located for edge in (begin, end)), len(line)]
        texts = [_caption(line[edges[at] : edges[at + 1]]) for at in range(0, len(edges), 2)]
        captions = texts[1:] if texts[-1] else texts[:-1]
        events += [(span, caption) for (_, _, span), caption in zip(located, captions, strict=True)]
    return events


def _caption(text: str) -> str:
    """Return a text without what belongs to its span or its list: marks, "from", "1."."""
    begin = _BEFORE_CAPTION.match(text)
    caption = text[begin.end() if begin else 0 :].rstrip(_EDGE_MARKS)
    return _AFTER_CAPTION.sub("", caption).rstrip(_EDGE_MARKS)


def _located(text: str, percent_of: float | None = None) -> list[tuple[int, int, Span]]:
    """Return where each span of a text begins and ends, and the span."""
    located: list[tuple[int, int, Span]] = []
    for match in _span_matches(text) if percent_of is None else _PERCENTS.finditer(text):
        start, end = (_seconds(match[name]) for name in ("start", "end"))
        if percent_of is not None:
            start, end = start * percent_of / 100, end * percent_of / 100
        if 0 <= start <= end < math.inf and (not located or match.start() >= located[-1][1]):
            located.append((match.start(), match.end(), (start, end)))
    return located


def _span_matches(text: str) -> list[re.Match[str]]:
    is_answer = _BESIDE_SPANS.fullmatch(_SPAN.sub(" ", text)) is not None
    matches = [match for match in _SPAN.finditer(text) if _is_span(match, is_answer)]
    matches += [match for match in _STARTS_ENDS.finditer(text) if _is_named_span(match)]
    return sorted(matches, key=re.Match.start)


def _is_span(match: re.Match[str], is_answer: bool) -> bool:
    start, end = match["start"], match["end"]
    if ":" in start or ":" in end:
        return ":" in start and ":" in end
    before = (match["unit1"] or "").lower()
    if match["unit"] or before == "seconds" or (before and match["unit2"]):
        return True
    ends_clause = re.match(r"\s*(?:[.,;:!?)]|$)", match.string[match.end() : match.end() + 9]) is not None
    decides = is_answer or (bool(match["from"] or match["between"]) and ends_clause)
    return decides and "." in start and "." in end


def _is_named_span(match: re.Match[str]) -> bool:
    start, end = match["start"], match["end"]
    if ":" in start or ":" in end:
        return ":" in start and ":" in end
    if match["unit"]:
        return True
    keys = all(re.search(r"[:=]", match[name]) for name in ("is1", "is2"))
    return _BARE_MIDDLE.fullmatch(match["middle"]) is not None and (keys or ("." in start and "." in end))


def _seconds(time: str) -> float:
    """Return the seconds of `2.5`, `m:ss`, `h:mm:ss` or `1m05`."""
    seconds = 0.0
    for part in re.split(r":|\s?m[a-z]*\s?", time.replace(",", "."), flags=re.IGNORECASE):
        seconds = seconds * 60 + float(part)
    return seconds
