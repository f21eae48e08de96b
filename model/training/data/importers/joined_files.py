"""Join the parts of a COCO-like JSON: annotations to their image, in a temporary database on disk.

The parts come in any order and are larger than memory. The database is a private file, which the system removes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from core.errors import UserError
from model.training.data.importers.format import Row, Unreadable
from model.training.data.importers.readers import files_of, kind_of, read_inside

_CUT = 2000  # characters of an annotation that cannot be used


class Joined:
    """One file: its images, and its annotations by image and by id."""

    def __init__(self, file: Path, images: str = "images", annotations: str = "annotations") -> None:
        """Read the file once for each part. `images`, `annotations`: their keys.

        Raises:
            UserError: A part is missing, or cannot be read to its end.
        """
        self.name = file.name
        self._db = sqlite3.connect("")
        for part, key, column in (("image", images, "id"), ("note", annotations, "image_id")):
            self._db.execute(f"CREATE TABLE {part} (line INTEGER PRIMARY KEY, id TEXT, image TEXT, value TEXT)")
            rows = read_inside(file, file.name, key)
            self._db.executemany(f"INSERT INTO {part} VALUES (?, ?, ?, ?)", (_columns(row, column) for row in rows))
            if self._db.execute(f"SELECT 1 FROM {part}").fetchone() is None:
                raise UserError(f"{file}: no `{key}` in it: give the data set's JSON with `{images}`, `{annotations}`")
            for indexed in ("id", "image"):
                self._db.execute(f"CREATE INDEX {part}_{indexed} ON {part} ({indexed})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def by_image(self, **others: Any) -> Iterator[Row]:
        """Yield each image with its annotations, then annotations of no image. `others`: for all rows' values."""
        for line, key, value in self._db.execute("SELECT line, id, value FROM image ORDER BY line"):
            found = self._db.execute("SELECT value FROM note WHERE image = ? ORDER BY line", (key,))
            notes = [json.loads(text) for (text,) in found]
            yield Row({"image": json.loads(value), "annotations": notes, **others}, self.name, line)
        orphans = (
            "SELECT line, value FROM note WHERE image IS NULL OR image NOT IN (SELECT id FROM image) ORDER BY line"
        )
        for line, value in self._db.execute(orphans):
            yield Row(Unreadable(value[:_CUT], f"no image of an annotation: annotation {line}"), self.name, line)

    def image(self, key: object) -> Any:
        """Return the image of an id; None if there is none."""
        return self._value("image", key)

    def annotation(self, key: object) -> Any:
        """Return the annotation of an id; None if there is none."""
        return self._value("note", key)

    def _value(self, part: str, key: object) -> Any:
        row = self._db.execute(f"SELECT value FROM {part} WHERE id = ?", (str(key),)).fetchone()
        return None if row is None else json.loads(row[0])


def json_files(source: Path) -> list[Path]:
    """Return the JSON files of a source.

    Raises:
        UserError: There is none.
    """
    files = [file for file in files_of(source) if kind_of(file) == ".json"]
    if not files:
        raise UserError(f"{source}: no .json in it: give the annotations")
    return files


def names_of(file: Path, key: str = "categories") -> Mapping[str, str]:
    """Return the names of a file's categories by their id, as text."""
    rows = [row.value for row in read_inside(file, file.name, key) if isinstance(row.value, Mapping)]
    return {str(row["id"]): str(row["name"]) for row in rows if "id" in row and "name" in row}


def _columns(row: Row, image_key: str) -> tuple[int, str, str | None, str]:
    value = row.value if isinstance(row.value, Mapping) else {}
    image = value.get(image_key)
    key = value.get("id", row.key)
    return row.line, str(key), None if image is None else str(image), json.dumps(row.value)
