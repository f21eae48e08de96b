"""Join the parts of a COCO-like JSON: annotations to their image, in a temporary database on disk.

The parts come in any order and are larger than memory. The database is a private file, which the system removes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

from core.errors import BadSampleError, UserError
from core.json_stream import JsonStream
from model.training.data.importers import readers
from model.training.data.importers.format import Row, Unreadable
from model.training.data.importers.readers import files_of_kind, open_packed

_MOST_PARTS = 64  # an object with more keys is one of id → value
_CUT = 2000  # characters of an annotation that cannot be used


LISTS = {"images": "images", "annotations": "annotations", "categories": "categories"}
"""The parts of COCO's files, which are lists, and their keys."""


class Joined:
    """One file: its images, its annotations by image and by id, the names of its categories."""

    def __init__(self, file: Path, keys: Mapping[str, str] = LISTS, *, are_lists: bool = True) -> None:
        """Read the file.

        Args:
            file: The JSON.
            keys: The keys of `images`, `annotations` and `categories`; the last may be missing.
            are_lists: Whether parts are lists; else they are objects of id → value.

        Raises:
            UserError: A part is missing, or the file cannot be read to its end.
        """
        self.name, self.names = file.name, dict[str, str]()
        self._db = sqlite3.connect("")
        for part in ("images", "annotations"):
            self._db.execute(f"CREATE TABLE {part} (line INTEGER PRIMARY KEY, id TEXT, image TEXT, value TEXT)")
        for part, line, value in _parts(file, {key: part for part, key in keys.items()}, are_lists):
            self._add(part, line, value)
        for part in ("images", "annotations"):
            if self._db.execute(f"SELECT 1 FROM {part}").fetchone() is None:
                wanted = f"`{keys['images']}` and `{keys['annotations']}`"
                raise UserError(f"{file}: no `{keys[part]}` in it: give the data set's JSON with {wanted}")
            for column in ("id", "image"):
                self._db.execute(f"CREATE INDEX {part}_{column} ON {part} ({column})")

    def _add(self, part: str, line: int, value: Any) -> None:
        entry = value if isinstance(value, Mapping) else {}
        if part == "categories":
            if isinstance(name := entry.get("name"), str):
                self.names[str(entry.get("id"))] = name
            return
        try:
            image = entry.get("image_id")
            row = (_key(entry.get("id")), None if image is None else _key(image), json.dumps(value))
        except (ValueError, RecursionError):  # numbers of thousands of digits, depths of thousands
            row = ("", None, json.dumps("a value that is nested too deeply, or a number that is too long"))
        self._db.execute(f"INSERT INTO {part} VALUES (?, ?, ?, ?)", (line, *row))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def by_image(self) -> Iterator[Row]:
        """Yield each image with its annotations and the names of all categories, then annotations of no image."""
        for line, key, value in self._db.execute("SELECT line, id, value FROM images ORDER BY line"):
            found = self._db.execute("SELECT value FROM annotations WHERE image = ? ORDER BY line", (key,))
            notes = [json.loads(text) for (text,) in found]
            yield Row({"image": json.loads(value), "annotations": notes, "categories": self.names}, self.name, line)
        lost = "image IS NULL OR image NOT IN (SELECT id FROM images)"
        orphans = f"SELECT line, value FROM annotations WHERE {lost} ORDER BY line"
        for line, value in self._db.execute(orphans):
            yield Row(Unreadable(value[:_CUT], f"no image of an annotation: annotation {line}"), self.name, line)

    def image(self, key: object) -> Any:
        """Return the image of an id; None if there is none."""
        return self._value("images", key)

    def annotation(self, key: object) -> Any:
        """Return the annotation of an id; None if there is none."""
        return self._value("annotations", key)

    def _value(self, part: str, key: object) -> Any:
        row = self._db.execute(f"SELECT value FROM {part} WHERE id = ?", (_key(key),)).fetchone()
        return None if row is None else json.loads(row[0])


def _key(value: object) -> str:
    """Return an id as text that is valid Unicode: ids are numbers or texts."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def first_value(file: Path, key: str) -> Mapping[str, Any]:
    """Return the first object in a part of a JSON file; an empty one if there is no such part, or no object in it."""
    with open_packed(file) as data, suppress(BadSampleError):  # reading the rows reports it
        text = JsonStream(data, readers.LARGEST, readers.NOT_UTF8)
        for name in islice(text.keys(), _MOST_PARTS) if text.peek() == "{" else ():
            if name != key:
                text.skip()
                continue
            values = text.elements() if text.peek() == "[" else _values(text) if text.peek() == "{" else iter(())
            value = next(values, None)
            return value if isinstance(value, Mapping) else {}
    return {}


def are_joined(source: Path, keys: Mapping[str, str]) -> bool:
    """Return whether all JSON files of a source have parts of images with `file_name`, and annotations with `image_id`.

    `keys`: as of `Joined`.
    """
    files = files_of_kind(source, ".json")
    return bool(files) and all(
        "file_name" in first_value(file, keys["images"]) and "image_id" in first_value(file, keys["annotations"])
        for file in files
    )


def json_files(source: Path) -> list[Path]:
    """Return the JSON files of a source.

    Raises:
        UserError: There is none.
    """
    files = files_of_kind(source, ".json")
    if not files:
        raise UserError(f"{source}: no .json in it: give the annotations")
    return files


def _parts(file: Path, keys: Mapping[str, str], are_lists: bool) -> Iterator[tuple[str, int, Any]]:
    """Yield the entries of some parts with the part and their number in it, in one pass; `keys`: key → part."""
    counts = dict.fromkeys(keys.values(), 0)
    with open_packed(file) as data:
        text = JsonStream(data, readers.LARGEST, readers.NOT_UTF8)
        try:
            for key in text.keys():  # noqa: SIM118  # no mapping
                if key not in keys:
                    text.skip()
                    continue
                for entry in text.elements() if are_lists else _values(text):
                    counts[keys[key]] += 1
                    yield keys[key], counts[keys[key]], entry
            text.finish()
        except BadSampleError as error:
            place = f"{sum(counts.values()):,}"
            raise UserError(f"{file.name}: no JSON behind entry {place}: {error}; mend the file") from error


def _values(text: JsonStream) -> Iterator[Any]:
    for _ in text.keys():  # noqa: SIM118
        yield text.value()
