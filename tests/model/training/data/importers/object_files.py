"""Import a JSON object, such as id → film, that is written in a test; and say what was rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.model.training.data.importers.importing import Imported, import_source


def import_object(folder: Path, format_: str, value: Any, name: str = "train.json", **options: str) -> Imported:
    """Import a file with one JSON value; `options` as of `--set`."""
    source = folder / name
    source.write_text(json.dumps(value))
    return import_source(format_, source, options=options)


def assert_rejected(imported: Imported, line: int, reason: str) -> None:
    """Check that one part of a line, and no other, was rejected with a reason that begins so."""
    assert [(row["line"], row["reason"][: len(reason)]) for row in imported.rejected] == [(line, reason)]


def answers(imported: Imported) -> list[str]:
    """Return the last answer of each record."""
    return [record.turns[-1].text for record in imported.records]
