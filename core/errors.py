"""Errors that the user or the data cause. Any other exception is a bug and shows its traceback."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """An error that the user must fix. The text is one line that says what is wrong and what to do."""


class BadSampleError(ValueError):
    """An image, film, row, text or file that cannot be used. The text is one line, stored as the row's `error`."""


def suggest(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the list of valid names if none is similar."""
    names = list(valid)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; valid are {', '.join(names)}"


def is_bug(error: BaseException) -> bool:
    """Return whether an exception is a bug in the code. If it is not, its text is meant for the user.

    UserError, BadSampleError and errors of the operating system, such as no space or connection refused, are no bugs.
    An error of the system has a number (`errno`) or a class for it. An OSError with neither is an unexpected error of a
    library. EBADF and EINVAL are errors of the system that only a bug causes.
    """
    if isinstance(error, UserError | BadSampleError | FileNotFoundError | PermissionError | ConnectionError):
        return False
    return not isinstance(error, OSError) or error.errno in (None, errno.EBADF, errno.EINVAL)


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Turn what a parser of a user's file raises into a UserError that names the file.

    Raises:
        UserError: The file cannot be read, or its content is invalid.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {_reason(error)}; copy it again") from error


def _reason(error: Exception) -> str:
    """Return the reason as one line; for pydantic's ValidationError, only the first problem."""
    if callable(problems := getattr(error, "errors", None)):
        first = problems()[0]
        key = ".".join(map(str, first["loc"]))
        return f"{key}: {first['msg']}" if key else str(first["msg"])
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
