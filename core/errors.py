"""The two kinds of error that are nobody's bug. Everything else is a bug and shows its traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something that the user must put right. The text is one line that says what is wrong and what to do."""


class BadSampleError(ValueError):
    """One image, film, row or text that cannot be used. The text is one line, stored as the row's `error`."""


def is_bug(error: BaseException) -> bool:
    """Whether it is for us to mend. Else its text is for the user: a UserError, a BadSampleError, or the system's word.

    The system gives its errors a number or a kind: no such file, no permission, no space, nobody listens. An OSError
    with neither is a library's that nobody here has expected. Of two numbers only code is the cause.
    """
    if isinstance(error, UserError | BadSampleError | FileNotFoundError | PermissionError | ConnectionError):
        return False
    return not isinstance(error, OSError) or error.errno in (None, errno.EBADF, errno.EINVAL)


@contextmanager
def reading(path: object) -> Iterator[None]:
    """What parsers raise over a file of the user's, as a UserError that names it.

    Raises:
        UserError: It cannot be read, or says what it should not.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {_reason(error)}; copy it again") from error


def _reason(error: Exception) -> str:
    """One line; of what pydantic says, the first thing."""
    if callable(said := getattr(error, "errors", None)):
        first = said()[0]
        key = ".".join(map(str, first["loc"]))
        return f"{key}: {first['msg']}" if key else str(first["msg"])
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


def yaml_problem(error: Exception) -> str:
    """What a YAML parser says is wrong, and where. The lines that it quotes are left out: they may hold a key."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{position}{problem or type(error).__name__}"
