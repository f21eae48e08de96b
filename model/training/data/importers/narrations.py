"""Narrations of Ego4D: short sentences with marks of who acts, `#C C lifts a lid`."""

from __future__ import annotations

import re

CLEANED = "strip_narration_marks"
"""Transform: the marks are gone."""

_MARKS = re.compile(r"#\s*(?:unsure|c|o)\b", re.IGNORECASE)


def clean(text: str) -> str:
    """Return a narration without its marks: `#C` the camera's wearer, `#O` another person, `#Unsure`."""
    return " ".join(_MARKS.sub(" ", text).split())
