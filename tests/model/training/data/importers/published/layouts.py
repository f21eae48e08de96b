"""How published data sets lie on disk: rows that a fixture invents, written as files; and the media that they name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.model import clips

Write = Callable[[Path, Sequence[Any]], Path]
"""Writes rows into a folder; returns the file or folder that is imported."""

SECONDS = 70
"""Length of all films of the fixtures."""


@dataclass(frozen=True)
class Published:
    """A small data set as it is published.

    Attributes:
        rows: Its rows; all are good, and each can be imported without the others.
        write: Its layout on disk.
        records: Records that the rows give.
        images: Size of each image below the media folder: width, height.
        films: Films below the media folder.
        options: Options of `--set`; `{folder}` is the folder that `tables` and media are in.
        tables: Further files beside the data set, which options name.
        auto: What `vl3syn import auto` takes it for, if not for what it is; `refused` if it says that it does not know.
    """

    rows: Sequence[Any]
    write: Write
    records: int
    images: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    films: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    auto: str = ""

    def write_rows(self, folder: Path, rows: Sequence[Any] | None = None) -> tuple[Path, dict[str, str]]:
        """Write the data set, or other rows in its layout, and its tables; return the source and the options."""
        for name, text in self.tables.items():
            (folder / name).write_text(text)
        (folder / "set").mkdir()
        source = self.write(folder / "set", self.rows if rows is None else rows)
        return source, {key: value.replace("{folder}", str(folder)) for key, value in self.options.items()}

    def write_media(self, folder: Path, film: Path) -> None:
        """Write the images, and link the films to one that exists."""
        for name, size in self.images.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (90, 140, 200)).save(folder / name)
        for name in self.films:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).hardlink_to(film)


def write_film(path: Path) -> Path:
    """Write a film of `SECONDS` seconds with a frame in each."""
    return clips.write(path, [float(second) for second in range(SECONDS + 1)], size=(32, 48))


def lines(name: str = "set.jsonl") -> Write:
    """A JSON value a line; packed if the name ends in .gz."""

    def write(folder: Path, rows: Sequence[Any]) -> Path:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return folder / name

    return write


def array(*inside: str, name: str = "train.json") -> Write:
    """An array, at a key of an object if one is given."""
    return lambda folder, rows: _dump(folder / name, rows, inside)


def keyed(key: str, *inside: str, name: str = "train.json") -> Write:
    """An object of id → row. The first row has the key, further ones the key and their number."""
    return lambda folder, rows: _dump(folder / name, dict(zip(keys(key, rows), rows, strict=True)), inside)


def keys(key: str, rows: Sequence[Any]) -> list[str]:
    """Return a key for each row."""
    return [key, *(f"{key}{number}" for number in range(1, len(rows)))]


def _dump(file: Path, value: Any, inside: Sequence[str] = ()) -> Path:
    for key in reversed(inside):
        value = {"version": 1, key: value}
    file.write_text(json.dumps(value))
    return file


def table(columns: str, name: str = "set.csv", separator: str = ",") -> Write:
    """A CSV with these columns; a row is an object of texts."""

    def write(folder: Path, rows: Sequence[Any]) -> Path:
        with open(folder / name, "w", newline="") as file:
            writer = csv.DictWriter(file, columns.split(","), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
        return folder / name

    return write


def parquet(folder: Path, rows: Sequence[Any]) -> Path:
    """A Parquet file with columns of text; `mp4` has bytes."""
    columns = [(name, pa.binary() if name == "mp4" else pa.string()) for name in rows[0]]
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(columns)), folder / "train.parquet")
    return folder / "train.parquet"


def parquet_with_json(key: str) -> Write:
    """A Parquet file in which one column has the text of a JSON; a row is an object with that value in it."""

    def write(folder: Path, rows: Sequence[Any]) -> Path:
        return parquet(folder, [{**row, key: json.dumps(row[key])} for row in rows])

    return write


def tar(ending: str = "", data: bytes = b"", key: str = "0") -> Write:
    """A tar with `KEY.json` for each row, and a file of its own beside each."""

    def write(folder: Path, rows: Sequence[Any]) -> Path:
        with tarfile.open(folder / "00000.tar", "w") as archive:
            for name, row in zip(keys(key, rows), rows, strict=True):
                _add(archive, f"{name}.{ending}", data)
                _add(archive, f"{name}.json", json.dumps(row).encode())
        return folder / "00000.tar"

    return write


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
