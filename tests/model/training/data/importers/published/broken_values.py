"""Rows of the fixtures with a value that is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.model.training.data.importers.published.layouts import Published

BROKEN: Sequence[Any] = (None, 7, float("nan"), "", "x", [None], {}, 10**400)
"""What stands in place of a value."""


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value in a row; of lists, those of the first two elements."""
    if above:
        yield above
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list | tuple) else ()
    )
    for key, one in inside:
        yield from places(one, (*above, key))


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a row with another value in a place."""
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = changed(value[place[0]], place[1:], new) if len(place) > 1 else new
    return copied


def broken_rows(published: Published, folder: Path) -> list[Any]:
    """Return the first row with each of its values broken in turn, as far as the layout can say that."""
    row = published.rows[0]
    broken = [changed(row, place, new) for place in places(row) for new in BROKEN]
    broken = broken or ["x", f"x{row}"]  # a row that is a line of text
    writable = []
    for number, one in enumerate(broken):
        (folder / f"tried-{number}").mkdir()
        try:
            published.write(folder / f"tried-{number}", [one])
        except (TypeError, ValueError, AttributeError, ArithmeticError):  # it has no place in the layout
            continue
        writable.append(one)
    return writable
