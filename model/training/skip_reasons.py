"""Why training skips samples of a source, reasons of one kind together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from model.training.data.measurement import Measured

_VARIABLE = (re.compile(r"\S*[/\\]\S*(?=:)|\S*[/\\]\S*"), re.compile(r"\d[\d,.]*"))
"""Paths and numbers of a reason: without them, reasons of one kind are the same."""

_LONGEST = 2000  # characters of a message
_GROUPED = 300  # of them tell its kind: a pattern takes the square of the length


@dataclass(frozen=True)
class SkipReason:
    """Samples that training skips for one reason.

    Attributes:
        reason: The reason, with `…` for numbers and paths.
        samples: Their number among the measured samples.
        example: The message about one of them.
    """

    reason: str
    samples: int
    example: str


def skip_reasons(source: str, measured: Iterable[Measured]) -> list[SkipReason]:
    """Group the measured samples that are skipped by their reason."""
    messages = [" ".join(one.error[:_LONGEST].split()) for one in measured if one.error]
    counts, examples = Counter[str](), dict[str, str]()
    for message in messages:
        reason = message.removeprefix(f"{source}: ")[:_GROUPED]
        for pattern in _VARIABLE:
            reason = pattern.sub("…", reason)
        counts[reason] += 1
        examples.setdefault(reason, message)
    return [SkipReason(reason, count, examples[reason]) for reason, count in counts.most_common()]
