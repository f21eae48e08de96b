"""Find the formats of published data, by name or by how their rows look."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import BadSampleError, UserError, suggest
from model.training.data.importers import formats
from model.training.data.importers.format import ROW_ERRORS, Draft, Format, Options, Row, reason_of
from model.training.data.importers.readers import read_rows

_LOOKED_AT = 20  # rows
NO_OPTIONS: Options = {}


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


def sniff(source: Path, options: Options = NO_OPTIONS) -> Format:
    """Return the format of a source: one that its files make certain; else, among those that one of the first rows
    looks like, the one that can read most of them.

    Args:
        source: A file or a folder.
        options: What the user gives as `--set`; each format gets those that it has.

    Raises:
        UserError: There is none, or two are as likely; the message names them.
    """
    certain = [format_.name for format_ in all_formats().values() if _is_certain(format_, source)]
    if certain:
        return _only(source, certain)
    readable: dict[str, int] = {}
    reasons: dict[str, str] = {}
    keys: list[str] = []
    for format_ in all_formats().values():
        if format_.rows is not None:
            continue
        rows = list(islice(read_rows(source, format_.inside), _LOOKED_AT))
        objects: list[Mapping[str, Any]] = [row.value for row in rows if isinstance(row.value, Mapping)]
        keys = keys or [str(key)[:40] for value in objects[:1] for key in value]
        if any(map(format_.fits, objects)):
            its_options = {key: value for key, value in options.items() if key in format_.options}
            found = [_unreadable(format_, row, its_options) for row in rows]
            readable[format_.name] = found.count("")
            reasons[format_.name] = next(filter(None, found), "")
    most = max(readable.values(), default=0)
    best = [name for name, count in readable.items() if count == most and count]
    for name, reason in reasons.items():
        # Another format would read them, but say less: a set without its option, such as MDVP's sizes of pictures.
        if not readable[name] and (not best or set(all_formats()[name].over) & set(best)):
            raise UserError(
                f"{source}: it looks like {name}, but none of its first rows can be read as that: {reason}; "
                "name the format in place of auto"
            )
    if best:
        return _only(source, best)
    raise UserError(
        f"{source}: no known format, its rows have the keys {', '.join(keys[:12]) or 'of no object'}: "
        "name one of `vl3syn import --list` in place of auto"
    )


def _is_certain(format_: Format, source: Path) -> bool:
    try:
        return format_.recognises is not None and format_.recognises(source)
    except UserError:  # a broken file: reading the rows reports it
        return False


def _only(source: Path, names: Sequence[str]) -> Format:
    """Return the one format of these that no other is narrower than.

    Raises:
        UserError: There are several.
    """
    narrow = [name for name in names if not any(name in all_formats()[other].over for other in names)]
    if len(narrow) != 1:
        raise UserError(f"{source}: it may be {' or '.join(narrow)}: name the format in place of auto")
    return all_formats()[narrow[0]]


def _unreadable(format_: Format, row: Row, options: Options) -> str:
    """Return why no record can be made of a row; an empty text if one can."""
    try:
        drafts = list(format_.read(row, options))
    except ROW_ERRORS as error:
        return reason_of(error)
    if any(isinstance(draft, Draft) for draft in drafts):
        return ""
    return next((str(draft) for draft in drafts if isinstance(draft, BadSampleError)), "no record in it")
