"""Where the films of annotations lie that have only ids, and tables beside the annotations: lengths, other ids."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath

from core.errors import BadSampleError, UserError
from model.training.data.importers.format import Options
from model.training.data.importers.turns import seconds_of

PATH = {"path": "file of a film below --media, with fields of the row, such as {id}.mkv"}
DURATIONS = {"durations": "CSV with the columns id and length, in seconds"}

_IDS = ("id", "video_id", "video_uid", "video", "vid")
_LENGTHS = ("length", "duration", "seconds")
_FIELD = re.compile(r"\{(\w*)\}")


def path_of(options: Options, default: str, **fields: object) -> str:
    """Return the path of a film: the option `path`, else `default`, with the row's fields in it.

    Raises:
        UserError: The pattern has a field that rows do not have.
    """
    pattern = options.get("path", default)
    if unknown := next((name for name in _FIELD.findall(pattern) if name not in fields), None):
        raise UserError(
            f"--set path={pattern}: no field {{{unknown}}}; there are {', '.join(map('{{{}}}'.format, fields))}"
        )
    return _FIELD.sub(lambda match: str(fields[match[1]]), pattern)


def length_of(options: Options, film: str) -> float | None:
    """Return the length of a film by the option `durations`, in seconds; None if it is not known."""
    file = options.get("durations")
    text = column_of(file, _LENGTHS).get(film) if file else None
    if not text:
        return None
    try:
        return seconds_of({"length": text}, "length")
    except BadSampleError as error:
        raise UserError(f"{file}: {film} has the length {text!r}; give seconds") from error


def split_of(file: str) -> str:
    """Return the split that a file's name has in it, such as `all_data_val.json`: train, val or test; else nothing."""
    words = re.split(r"[^a-z]+", PurePath(file).stem.lower())
    return next((split for split in ("train", "val", "test") if split in words), "")


@lru_cache(4)
def column_of(file: str, names: tuple[str, ...]) -> Mapping[str, str]:
    """Return a column of a CSV by id. `names`: what the column may be called.

    Raises:
        UserError: It cannot be read, or has no such columns.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            header = {name.strip().lower(): name for name in reader.fieldnames or ()}
            ids = next((header[name] for name in _IDS if name in header), None)
            values = next((header[name] for name in names if name in header), None)
            if ids is None or values is None:
                raise UserError(
                    f"{file}: give a CSV with the columns {_IDS[0]} and {names[0]}; it has {', '.join(header)}"
                )
            return {row[ids]: row[values] for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: no table: {error}; give a CSV with the columns {_IDS[0]} and {names[0]}") from error
