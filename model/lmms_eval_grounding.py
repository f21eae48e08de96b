"""Time spans and their IoU as lmms-eval's task `temporal_grounding_charades` has them (lmms-eval 0.7.3).

To compare with numbers that were made with it: what it reads is less than an answer says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from model.grounding_scores import Span

_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"  # of its older prompt; answers may repeat it
_SENTENCE_ENDS = re.compile(r"[!?\n]")
_KEYWORDS = ("start", "end", "happen")
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2})?"
_NUMBER = r"\d+(?:\.\d+)?"
_DASH = r"\s*[\u2013-]\s*"
_CLOCK_SPAN = re.compile(rf"\b({_CLOCK}){_DASH}({_CLOCK})\b")
_NUMBER_SPAN = re.compile(rf"({_NUMBER}){_DASH}({_NUMBER})")
_ONE_CLOCK = re.compile(rf"\b({_CLOCK})\b")
_ONE_NUMBER = re.compile(rf"\b({_NUMBER})\b")
_SPAN_WITH_UNIT = re.compile(rf"({_NUMBER})\s*s?{_DASH}({_NUMBER})")


def lmms_eval_spans(text: str) -> list[Span]:
    """Read the span of an answer: one, or none.

    Sentences end with `!`, `?` or a line break, and every "to" is a dash, within words too. Sentences with "start",
    "end" or "happen" are looked at if there are any, else all. The first of these that is found is the span:

    1. two clocks with a dash, `0:05 - 0:10`,
    2. two numbers with a dash, whatever they count: of `2-3 people; 12.0 - 20.0 s`, 2 to 3,
    3. the first two clocks,
    4. the first numbers of the first two sentences that have a number: of two numbers in one sentence, nothing,
    5. two numbers with a dash and a unit between them, `3s - 5s`.

    A span that ends before it starts is turned round. One with a number too large for a float is none.
    """
    plain = text.lower().replace(_EXAMPLE, "").replace("to", "-")
    sentences = _SENTENCE_ENDS.split(plain)
    sentences = [one for one in sentences if any(word in one for word in _KEYWORDS)] or sentences
    readings: tuple[Callable[[Sequence[str]], tuple[str, str] | None], ...] = (
        lambda texts: _first(_CLOCK_SPAN, texts),
        lambda texts: _first(_NUMBER_SPAN, texts),
        lambda texts: _two(clock for one in texts for clock in _ONE_CLOCK.findall(one)),
        lambda texts: _two(number[1] for one in texts if (number := _ONE_NUMBER.search(one))),
        lambda texts: _first(_SPAN_WITH_UNIT, texts),
    )
    times = next((times for read in readings if (times := read(sentences))), None)
    if times is None:
        return []
    start, end = sorted(map(_seconds, times))
    return [(start, end)] if end < math.inf else []


def lmms_eval_iou(spans: Sequence[Span], references: Sequence[Span]) -> float:
    """Return the IoU of the first span and the first reference, 0 to 1: the overlap over the length from first to last.

    Where the two overlap, this is the IoU of `temporal_iou`; else both are 0.
    """
    if not spans or not references:
        return 0.0
    (start, end), (reference_start, reference_end) = spans[0], references[0]
    hull = max(end, reference_end) - min(start, reference_start)
    return max(min(end, reference_end) - max(start, reference_start), 0.0) / hull if hull > 0 else 0.0


def _first(pattern: re.Pattern[str], sentences: Iterable[str]) -> tuple[str, str] | None:
    """Return the two times of a pattern's first match."""
    match = next((match for one in sentences if (match := pattern.search(one))), None)
    return (match[1], match[2]) if match else None


def _two(times: Iterator[str]) -> tuple[str, str] | None:
    """Return the first two times; None if there are less."""
    first, second = next(times, None), next(times, None)
    return (first, second) if first is not None and second is not None else None


def _seconds(time: str) -> float:
    seconds = 0.0
    for part in time.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds
