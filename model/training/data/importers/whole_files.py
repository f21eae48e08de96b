"""Read folders whose files are one row each: a JSON, a text, an XML; and tars beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadSampleError
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


def row_of_texts(texts: Mapping[str, Path], others: Mapping[str, Any], name: str, key: str) -> Row:
    """Return a row of the texts of some files, None for one that is not there; a file that is no text makes it none.

    Args:
        texts: The files, by the key of the row.
        others: What else the row has.
        name: The row's file.
        key: The row's key.
    """
    try:
        return Row({**others, **{text: _text_in(file) for text, file in texts.items()}}, name, 1, key)
    except BadSampleError as error:
        return Row(Unreadable(name, str(error)), name, 1, key)


def _text_in(file: Path) -> str | None:
    if not file.is_symlink() and not file.exists():
        return None
    if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST:
        raise BadSampleError(f"a link, or too large: {file.name}; links are not followed")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSampleError(f"no UTF-8: {file.name}: {error.reason}") from error


def _parsed(text: bytes) -> Any:
    shown = text[:2000].decode("utf-8", "replace")
    if len(text) > LARGEST:
        return Unreadable(shown, f"too large: more than {LARGEST >> 20} MiB in one row")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(shown, f"no JSON: {' '.join(str(error).split())[:200]}")
