"""Scores of time spans (temporal grounding) and of dense captions, against references.

A span is (start, end) in seconds. A span that is not finite, or does not end after its start, has no length and
overlaps nothing; none of the functions raises for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

Span = tuple[float, float]

Event = tuple[Span, str]
"""A span and its caption."""

THRESHOLDS = (0.3, 0.5, 0.7)
"""IoU thresholds of R@1: Gao et al. 2017, arXiv 1705.02101; VideoLLaMA3's evaluation has the same."""

EVENT_THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""IoU thresholds of dense captions: Krishna et al. 2017, arXiv 1705.00754."""


def temporal_iou(spans: Sequence[Span], references: Sequence[Span]) -> float:
    """Return the length of the intersection of two sets of spans over that of their union, 0 to 1.

    Overlapping spans of a set count once. Without any length in the union it is 0.
    """
    ours, theirs = _merged(spans), _merged(references)
    shared = sum(_overlap(a, b) for a in ours for b in theirs)
    union = _length(ours) + _length(theirs) - shared
    return min(shared / union, 1.0) if union > 0 else 0.0


def grounding_iou(spans: Sequence[Span], references: Sequence[Span]) -> float:
    """Return the IoU of an answer, 0 to 1.

    With one reference, it is that of the answer's first span (R@1 is about one prediction). With several, it is that of
    all spans of both (`temporal_iou`).
    """
    return temporal_iou(spans[:1] if len(references) == 1 else spans, references)


def videollama3_iou(spans: Sequence[Span], references: Sequence[Span]) -> float:
    """Return what VideoLLaMA3's evaluation calls IoU (evaluation/benchmarks/base.py). It can exceed 1.

    The first reference counts. Overlaps of all spans are added up, even if the spans overlap each other: the reference
    said twice gives 2.
    """
    references = references[:1]
    if not _merged(references):
        return 0.0
    lengths = [(min(span), max(span)) for span in spans if all(map(math.isfinite, span))]
    shared = sum(_overlap(span, references[0]) for span in lengths)
    union = _length(references) + _length(lengths) - shared
    return shared / union if 0 < union < math.inf else 0.0


def videollama3_spans(text: str) -> list[Span]:
    """Read spans as VideoLLaMA3's evaluation does (evaluation/benchmarks/charades_sta.py).

    All `a-b` and `a to b`, whatever they are; if there are none, all numbers in pairs, without the first number if they
    are odd. Units and clocks are not read. A number that is too large for a float is left out with its span.
    """
    number = r"\d+(?:\.\d*)?|\.\d+"
    pairs = re.findall(rf"({number})\s*(?:-|to)\s*({number})", text)
    if not pairs:
        numbers = re.findall(r"(?:\d*\.)?\d+", text)
        numbers = numbers[len(numbers) % 2 :]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    spans = [(float(start), float(end)) for start, end in pairs]
    return [(start, end) for start, end in spans if start < math.inf and end < math.inf]


def localisation(spans: Sequence[Span], references: Sequence[Span], threshold: float) -> tuple[float, float]:
    """Return precision and recall of spans, 0 to 1 (Krishna et al. 2017, arXiv 1705.00754).

    They are the shares with an IoU above the threshold to any span of the other side. Without spans, precision is 0.
    """
    hits = [[temporal_iou([span], [reference]) > threshold for reference in references] for span in spans]
    precision = sum(map(any, hits)) / len(spans) if spans else 0.0
    recall = sum(map(any, zip(*hits, strict=True))) / len(references) if references else 0.0
    return precision, recall


def f1(precision: float, recall: float) -> float:
    """Return the harmonic mean; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def soda(events: Sequence[Event], references: Sequence[Event], similarity: Callable[[str, str], float]) -> float:
    """Return SODA, 0 to 1 (Fujita et al. 2020, ECCV, "SODA: Story Oriented Dense Video Captioning Evaluation").

    Both sides are sorted by time. A matching pairs events one to one and keeps their order; a pair is worth IoU times
    similarity (SODA_c). The best sum over a matching is S[i, j] = max(S[i-1, j], S[i, j-1], S[i-1, j-1] + worth[i, j]).
    Over the number of events it is precision, over that of references recall; the score is their F1.

    Args:
        events: Predicted spans and captions.
        references: Those of the reference.
        similarity: Similarity of a reference and a caption, 0 to 1. SODA itself takes METEOR.
    """
    if not events or not references:
        return 0.0
    best = [0.0] * (len(references) + 1)
    ordered = sorted(references, key=_by_time)
    for span, caption in sorted(events, key=_by_time):
        above = best.copy()
        for at, (reference_span, reference) in enumerate(ordered):
            iou = temporal_iou([span], [reference_span])
            worth = iou * similarity(reference, caption) if iou else 0.0
            best[at + 1] = max(above[at + 1], best[at], above[at] + worth)
    return f1(best[-1] / len(events), best[-1] / len(references))


def rouge_l() -> Callable[[str, str], float]:
    """Return the ROUGE-L F1 of a reference and a text, 0 to 1, by rouge-score without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return lambda reference, text: float(scorer.score(reference, text)["rougeL"].fmeasure)


def _by_time(event: Event) -> Span:
    start, end = event[0]
    return (start, end) if math.isfinite(start) and math.isfinite(end) else (math.inf, math.inf)


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Return the union as disjoint spans of positive length, sorted."""
    merged: list[Span] = []
    for start, end in sorted((start, end) for start, end in spans if -math.inf < start < end < math.inf):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _overlap(a: Span, b: Span) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def _length(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)
