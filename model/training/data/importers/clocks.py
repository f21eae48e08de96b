"""Times as clocks write them, `0:01:02.500`, in seconds."""

from __future__ import annotations

import re
import reprlib

from core.errors import BadSampleError

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):([0-5]?\d(?:[.,]\d{1,9})?)")


def clock_seconds(text: object) -> float:
    """Return the seconds of `h:mm:ss.fff` or `mm:ss.fff`.

    Raises:
        BadSampleError: It is something else.
    """
    match = _CLOCK.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or (match[1] and int(match[2]) > 59):
        raise BadSampleError(f"no clock time: {reprlib.repr(text)}")
    hours, minutes, seconds = match.groups()
    return round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", ".")), 6)
