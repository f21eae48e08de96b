"""The times that an answer names: a click on one jumps there in the film."""

from __future__ import annotations

import re

from model.training.data.grounding import spans_of

_SECONDS = re.compile(
    r"(?<![\w.:-])(?P<seconds>[0-9]{1,6}(?:\.[0-9]{1,3})?)\s?(?:s|sec|secs|seconds?)\b", re.IGNORECASE
)
_CLOCK = re.compile(r"(?<![\w.:-])(?:(?P<h>[0-9]{1,2}):)?(?P<m>[0-9]{1,2}):(?P<s>[0-5][0-9])(?![\w:]|\s?[ap]\.?m\b)")
_MOST = 40


def moments_of(text: str, length: float) -> list[float]:
    """Return the times in an answer, in seconds, ascending, each once: the ends of its spans, and single times.

    Args:
        text: The answer.
        length: The film's length in seconds. Times behind it are left out.
    """
    times = {edge for span in spans_of(text) for edge in span}
    times |= {float(match["seconds"]) for match in _SECONDS.finditer(text)}
    times |= {int(match["h"] or 0) * 3600.0 + int(match["m"]) * 60 + int(match["s"]) for match in _CLOCK.finditer(text)}
    return sorted(time for time in times if time <= length)[:_MOST]


def clock(seconds: float) -> str:
    """Return a time as people read it: 7.5 s, 1:05, 1:01:05."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
