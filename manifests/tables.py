"""Tables of facts: append-only folders of Parquet parts, with many writers, readable at any time."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pyarrow import fs as pafs

from core.control_tokens import CONTROL_TOKEN, MAX_COUNT
from manifests.part_files import Part, PartFiles, generation_of, write_part, writer_of
from manifests.parts import footer_of, read_part, scan_parts
from manifests.replaced_rows import replaced_rows
from manifests.schemas import table_schema, text_of
from manifests.storage import Folder

Read = TypeVar("Read")

_OF_EVERY_TABLE = ("id", "error", "retry")
REMEDY = "delete it and run again: its rows are computed again"
"""What to do about a damaged part of most tables."""

_ROW = "vl3syn.row"
"""Column with the number of a row in all files of a table, in their order."""

_LISTINGS = 5
"""How often the folder is listed, if files go away between listing and opening."""


@dataclass(frozen=True)
class Table:
    """A folder of parts named `part-<generation>-<writer>-<smallest id>-<hash of the ids>.parquet`.

    A *writer* is one job. Each job starts a new generation, so names sort by age. Within a job, each id is written
    once: a task that runs twice writes the same name with the same rows. If an id has several rows, the row of the
    newest generation counts. Parts with ascending ranges of ids, as stages write them, are read in that order.

    Attributes:
        folder: The folder of the parts.
        schema: The columns of a part. `append` casts to it, and an empty table has these columns.
        key: The column by which newer rows replace older ones: `id`, or `shard` for the index, which is read by shard.
        remedy: What to do about a damaged part, for the error.
    """

    folder: Folder
    schema: pa.Schema
    key: str = "id"
    remedy: str = REMEDY

    @property
    def writes(self) -> pa.Schema:
        """The columns that the stage computes, without `id`, `error` and `retry`."""
        return pa.schema([field for field in self.schema if field.name not in _OF_EVERY_TABLE])

    def parts(self) -> list[str]:
        """Return the names of the parts, oldest generation first.

        Raises:
            UserError: A file has nearly the name of a part, as copies have.
        """
        return self._listed(lambda files: [part.name for part in files.parts])

    def list_files(self) -> PartFiles:
        """List the files of the table."""
        return PartFiles.of(self.folder, self.remedy)

    def _listed(self, read: Callable[[PartFiles], Read]) -> Read:
        """List the files and read them. If one was deleted since (see `manifests.compaction`), list them again."""
        for _ in range(_LISTINGS):
            try:
                return read(self.list_files())
            except FileNotFoundError as error:
                gone = error
        raise gone

    def scan(self, columns: Sequence[str] | None = None) -> pl.LazyFrame:
        """Return the current rows, as stored so far. A writer may add parts at the same time.

        Args:
            columns: Columns to read; their checksums are compared now. Default all.

        Raises:
            UserError: A part is damaged, or another version wrote a column in another type.
        """
        names = self.schema.names if columns is None else list(columns)
        return self._listed(lambda files: self._current(files, names))

    def every_id(self) -> pl.LazyFrame:
        """Return column `id` of all rows, including those that newer ones replace. An id may occur several times."""
        return self._listed(lambda files: self._all(files.files, ["id"]))

    def every_row(self, columns: Sequence[str]) -> pl.LazyFrame:
        """Return columns of all rows, including those that newer ones replace, oldest generation first."""
        return self._listed(lambda files: self._all(files.files, columns))

    def locate(self) -> tuple[pl.LazyFrame, list[str]]:
        """Return where the current rows are, for readers that need only a few of them.

        Returns:
            Columns `id` and `part`, in stored order, and the names of the parts; `part` is an index into the names.
        """
        return self._listed(self._locate)

    def _locate(self, files: PartFiles) -> tuple[pl.LazyFrame, list[str]]:
        rows = self._current(files, ["id"], numbered=True)
        lengths = files.lengths()
        starts = pl.DataFrame({_ROW: files.starts(), "part": np.arange(len(lengths))})
        starts = starts.filter(lengths > 0).cast(pl.UInt32).sort(_ROW)
        names = [part.name for part in files.parts]
        return rows.join_asof(starts.lazy(), on=_ROW).select("id", "part"), names

    def part_of(self, id_: int) -> str | None:
        """Return the name of the part with the current row of an id; None if nothing is stored for it."""
        where, parts = self.locate()
        rows = where.filter(pl.col("id") == id_).collect(engine="streaming")
        return parts[rows["part"][0]] if rows.height else None

    def read(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Read some columns of one part.

        Raises:
            UserError: As in `scan`.
            FileNotFoundError: There is no such part.
        """
        (rows,) = (rows for _, rows in self.read_each([part], columns))
        return rows

    def read_each(self, parts: Iterable[str], columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        """Yield the names of parts with some columns of their rows, in no order. A file with several is read once.

        Raises:
            UserError: As in `scan`.
            FileNotFoundError: There is no such part.
        """
        left = set(parts)
        for _ in range(_LISTINGS):
            found = [part for part in self.list_files().parts if part.name in left]
            try:
                for file, held in groupby(sorted(found, key=_path_of), key=_path_of):
                    rows = self.read_file(file, columns)
                    for part in held:
                        left.remove(part.name)
                        yield part.name, rows.slice(part.start, part.rows)
            except FileNotFoundError:
                continue
            break
        if left:
            raise FileNotFoundError(f"{self.folder.path}/{min(left)}: the file has gone")

    def read_file(self, path: str, columns: Sequence[str]) -> pa.Table:
        """Return columns of a file of the table. Control tokens are counted as in `scan`."""
        texts = self._uncounted([self.folder.filesystem.get_file_info(path)], columns)
        fields = pa.schema([self.schema.field(name) for name in dict.fromkeys([*columns, *texts.values()])])
        rows = read_part(self.folder, self.folder.relative(path), self.remedy, fields)
        for name, text in texts.items():
            counts = pl.DataFrame(rows.select([name, text])).select(_counted({name: text})).to_arrow()
            rows = rows.set_column(rows.column_names.index(name), fields.field(name), counts[name])
        return rows.select(columns)

    def _current(self, files: PartFiles, columns: Sequence[str], numbered: bool = False) -> pl.LazyFrame:
        """Return the current rows; with their numbers in all files (column `_ROW`) if `numbered`."""
        rows, hidden = self._all(files.files, columns), self._hidden(files)
        if numbered or len(hidden):
            rows = rows.with_row_index(_ROW)
        if len(hidden):
            rows = rows.join(pl.LazyFrame({_ROW: hidden}), on=_ROW, how="anti", maintain_order="left")
        return rows if numbered else rows.select(columns)

    def current_files(self) -> tuple[PartFiles, npt.NDArray[np.uint32]]:
        """List the files; return them, and the sorted numbers of the rows that do not count (see `replaced_rows`)."""
        return self._listed(lambda files: (files, self._hidden(files)))

    def _hidden(self, files: PartFiles) -> npt.NDArray[np.uint32]:
        def keys(infos: Sequence[pafs.FileInfo]) -> npt.NDArray[np.integer]:
            key = self._all(infos, [self.key]).collect(engine="streaming")[self.key]
            return (key if key.dtype.is_integer() else key.hash()).to_numpy()

        return replaced_rows(files, keys)

    def _all(self, files: Sequence[pafs.FileInfo], columns: Sequence[str]) -> pl.LazyFrame:
        """Return all rows of some files. Count control tokens here where a part's version did not count them."""
        if not files:
            return pl.DataFrame(self.schema.empty_table()).lazy().select(columns)
        texts = self._uncounted(files, columns)
        fields = pa.schema([self.schema.field(name) for name in dict.fromkeys([*columns, *texts.values()])])
        frame = scan_parts(self.folder, files, fields, self.remedy)
        return frame.with_columns(_counted(texts)).select(columns) if texts else frame

    def _uncounted(self, files: Iterable[pafs.FileInfo], columns: Sequence[str]) -> dict[str, str]:
        """Return the columns that count control tokens and that some of the files lack, each with its text column."""
        texts = {name: text for name in columns if (text := text_of(self.schema.field(name)))}
        stored = [set(footer_of(self.folder, file, self.remedy).schema.names) for file in files if texts]
        return {name: text for name, text in texts.items() if any(name not in s and text in s for s in stored)}

    def next_writer(self) -> str:
        """Return a writer name for a new job. It sorts after all existing ones."""
        generation = max((generation_of(writer_of(name)) for name in self.parts()), default=0) + 1
        return f"{generation:06d}-{uuid.uuid4().hex[:8]}"

    def append(self, rows: pa.Table, writer: str, provenance: Mapping[str, object]) -> str:
        """Write `rows` as one part, atomically, and return its name.

        Args:
            rows: Columns of `schema`, each id once. A part without rows only records the columns.
            writer: From `next_writer`.
            provenance: What computed the rows; stored in the part's Parquet metadata under `vl3syn`.
        """
        return write_part(self.folder, writer, rows.select(self.schema.names).cast(self.schema), provenance)

    @classmethod
    def stored(cls, folder: Folder) -> Table:
        """Open the table in `folder` with all columns that any job has written (`id`, `error` and `retry` if none has).

        One job has one version, so one part per job is read. If a column has two types, the newest one counts.
        """
        empty = cls(folder, table_schema(pa.schema([])))
        fields = empty._listed(empty._fields_of)
        writes = [field for name, field in fields.items() if name not in _OF_EVERY_TABLE]
        return cls(folder, table_schema(pa.schema(writes)))

    def _fields_of(self, files: PartFiles) -> dict[str, pa.Field]:
        newest_of_each = {part.writer: part for part in files.parts}
        fields: dict[str, pa.Field] = {}
        for part in reversed(newest_of_each.values()):
            for field in footer_of(self.folder, part.file, self.remedy).schema:
                fields.setdefault(field.name, field)
        return fields

    def provenance(self, part: str | None = None) -> dict[str, object]:
        """Return the provenance of a part, by default the newest, as given to `append`; empty if there is no part."""

        def read(files: PartFiles) -> dict[str, object]:
            parts = [found for found in files.parts if part in (None, found.name)]
            return files.provenance(parts[-1]) if parts else {}

        return self._listed(read)

    def recorded(self, key: str) -> object | None:
        """Return the newest value of a key of the provenance; None if no part has it.

        Parts of rows that failed without a model lack what only the model knows, such as the hash of its weights.
        """

        def read(files: PartFiles) -> object | None:
            values = (files.provenance(part).get(key) for part in reversed(files.parts))
            return next((value for value in values if value is not None), None)

        return self._listed(read)

    def provenances(self) -> dict[str, dict[str, object]]:
        """Return the provenance of each part by its name, oldest generation first."""
        return self._listed(lambda files: {part.name: files.provenance(part) for part in files.parts})


def fingerprint(what: Mapping[str, object]) -> str:
    """Return a hash of `what`: eight hex digits."""
    canonical = json.dumps(what, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=4).hexdigest()


def _counted(texts: Mapping[str, str]) -> list[pl.Expr]:
    """Return the columns that count control tokens; where they are null, those of their text columns are counted."""
    counts = {name: pl.col(text).str.count_matches(CONTROL_TOKEN) for name, text in texts.items()}
    return [pl.col(name).fill_null(n.clip(upper_bound=MAX_COUNT).cast(pl.Int8)) for name, n in counts.items()]


def _path_of(part: Part) -> str:
    return str(part.file.path)
