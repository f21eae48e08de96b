"""The two kinds of error that are nobody's bug. Everything else is a bug and shows its traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user must put right. The text is one line that says what is wrong and what to do."""


class BadSampleError(ValueError):
    """One image, film, row or text that cannot be used. The text is one line, stored as the row's `error`."""


def yaml_problem(error: Exception) -> str:
    """What a YAML parser says is wrong, and where. The lines that it quotes are left out: they may hold a key."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{position}{problem or type(error).__name__}"
