"""Read folders whose files are one row each: a JSON, a text, an XML; and tars beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from model.training.data.importers.format import Row, Unreadable
from model.training.data.importers.readers import LARGEST, Notes, files_of, kind_of, open_packed, read_file


def whole_rows(source: Path) -> Iterator[Row]:
    """Yield a row for each .json of a source, and the samples of its tars."""
    for file in files_of(source):
        name = file.name if file == source else str(file.relative_to(source))
        if kind_of(file) != ".json":
            yield from read_file(file, name, (), Notes())
            continue
        with open_packed(file) as data:
            text = data.read(LARGEST + 1)
        yield Row(_parsed(text), name, 1, name.partition(".")[0])


def text_in(file: Path) -> str | None:
    """Return the text of a file; None if there is none.

    Raises:
        UserError: It is no text, a link, or too large.
    """
    if not file.exists():
        return None
    if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST:
        raise UserError(f"{file}: a link, or more than {LARGEST >> 20} MiB: give the file itself")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: no UTF-8: {error.reason}; convert it") from error


def _parsed(text: bytes) -> Any:
    shown = text[:2000].decode("utf-8", "replace")
    if len(text) > LARGEST:
        return Unreadable(shown, f"too large: more than {LARGEST >> 20} MiB in one row")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(shown, f"no JSON: {' '.join(str(error).split())[:200]}")
