"""Lists that stand in a cell as Python writes them: `['a', "b's"]`. They are parsed, never run."""

from __future__ import annotations

import ast
import reprlib
from typing import Any

from core.errors import BadSampleError

LONGEST = 256 << 10
"""Characters of a cell: its syntax tree takes up to 500 times as many bytes."""


def literal_list(cell: object, name: str) -> list[Any]:
    """Return the list in a cell.

    Raises:
        BadSampleError: It is too long, or no list of plain values.
    """
    if isinstance(cell, list):  # from Parquet or JSON
        return cell
    if not isinstance(cell, str):
        raise BadSampleError(f"no list in `{name}`: {reprlib.repr(cell)}")
    if len(cell) > LONGEST:
        raise BadSampleError(f"a list too long: `{name}` has {len(cell):,} characters, more than {LONGEST:,}")
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise BadSampleError(f"no list in `{name}`: {reprlib.repr(cell)}") from error
    if not isinstance(value, list):
        raise BadSampleError(f"no list in `{name}`: {reprlib.repr(cell)}")
    return value
