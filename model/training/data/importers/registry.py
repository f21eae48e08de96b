"""Find the formats of published data, by name or by how their rows look."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import UserError, suggest
from model.training.data.importers import formats
from model.training.data.importers.format import ROW_ERRORS, Draft, Format, Row
from model.training.data.importers.readers import read_rows

_LOOKED_AT = 20  # rows


@cache
def all_formats() -> Mapping[str, Format]:
    """Return the formats by name: those of all modules of `formats`."""
    collected: dict[str, Format] = {}
    for module in pkgutil.iter_modules(formats.__path__):
        loaded = import_module(f"{formats.__name__}.{module.name}")
        for format_ in getattr(loaded, "FORMATS", None) or (loaded.FORMAT,):
            assert format_.name not in collected, f"two formats are called {format_.name}"
            collected[format_.name] = format_
    return dict(sorted(collected.items()))


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        UserError: There is no such format.
    """
    try:
        return all_formats()[name]
    except KeyError as error:
        near = suggest(name, all_formats())
        raise UserError(f"{name}: no such format{near}; `vl3syn import --list` has all") from error


def sniff(source: Path) -> Format:
    """Return the format that can read most of the first rows of a source, among those that one of them looks like.

    Raises:
        UserError: There is none, or two read as many; the message names them.
    """
    readable: dict[str, int] = {}
    keys: list[str] = []
    for format_ in all_formats().values():
        if format_.rows is not None:
            continue
        rows = list(islice(read_rows(source, format_.inside), _LOOKED_AT))
        objects: list[Mapping[str, Any]] = [row.value for row in rows if isinstance(row.value, Mapping)]
        keys = keys or [str(key)[:40] for value in objects[:1] for key in value]
        if any(map(format_.fits, objects)):
            readable[format_.name] = sum(_can_read(format_, row) for row in rows)
    most = max(readable.values(), default=0)
    best = [name for name, count in readable.items() if count == most and count]
    best = [name for name in best if not any(name in all_formats()[other].over for other in best)]
    if len(best) == 1:
        return all_formats()[best[0]]
    if best:
        raise UserError(f"{source}: it may be {' or '.join(best)}: name the format in place of auto")
    raise UserError(
        f"{source}: no known format, its rows have the keys {', '.join(keys[:12]) or 'of no object'}: "
        "name one of `vl3syn import --list` in place of auto"
    )


def _can_read(format_: Format, row: Row) -> bool:
    try:
        return any(isinstance(draft, Draft) for draft in format_.read(row, {}))
    except ROW_ERRORS:
        return False
