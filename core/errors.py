"""The two kinds of error that are nobody's bug. Everything else is a bug and shows its traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user must put right. The text is one line that says what is wrong and what to do."""


class BadSampleError(ValueError):
    """One image, film, row or text that cannot be used. The text is one line, stored as the row's `error`."""
