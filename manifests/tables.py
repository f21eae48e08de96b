"""Tables of facts: append-only folders of Parquet parts, with many writers, readable at any time."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from pyarrow import fs as pafs

from core.control_tokens import CONTROL_TOKEN, MAX_COUNT
from core.errors import UserError
from manifests.embeddings import is_embedding
from manifests.parts import footer_of, read_part, scan_parts, to_bytes
from manifests.schemas import table_schema, text_of
from manifests.storage import Folder

_PART, _SUFFIX = "part-", ".parquet"
_NAME = re.compile(rf"{_PART}\d{{6,}}-[0-9a-f]+-[0-9a-f]{{16}}-[0-9a-f]{{16}}{re.escape(_SUFFIX)}")
_OF_EVERY_TABLE = ("id", "error", "retry")
REMEDY = "delete it and run again: its rows are computed again"
"""What to do about a damaged part of most tables."""


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
        """Return the names of the current parts, oldest generation first.

        Raises:
            UserError: A file has nearly the name of a part, as copies have.
        """
        return [info.base_name for info in self._infos()]

    def _infos(self) -> list[pafs.FileInfo]:
        files = self.folder.files()
        parts = [f for f in files if f.base_name.startswith(_PART) and f.base_name.endswith(_SUFFIX)]
        # The rows of such a file may also be in another part, or nowhere else. Only the user knows.
        if wrong := [f.path for f in parts if not _NAME.fullmatch(f.base_name)]:
            raise UserError(
                f"{wrong[0]}: no part has such a name; if it is a copy, move it away, if it was renamed, "
                "give it back its name"
            )
        return parts

    def scan(self, columns: Sequence[str] | None = None) -> pl.LazyFrame:
        """Return the current rows, as stored so far. A writer may add parts at the same time.

        Args:
            columns: Columns to read; their checksums are compared now. Default all.

        Raises:
            UserError: A part is damaged, or another version wrote a column in another type.
        """
        names = self.schema.names if columns is None else list(columns)
        infos = self._infos()
        if not infos:
            return pl.DataFrame(self.schema.empty_table()).lazy().select(names)
        return self._current(infos, names).select(names)

    def every_id(self) -> pl.LazyFrame:
        """Return column `id` of all rows in all parts, including rows that newer ones replace."""
        infos = self._infos()
        if not infos:
            return pl.LazyFrame(schema={"id": pl.Int64})
        return scan_parts(self.folder, infos, self._fields(["id"]), self.remedy)

    def locate(self) -> tuple[pl.LazyFrame, list[str]]:
        """Return where the current rows are, for readers that need only a few of them.

        Returns:
            Columns `id` and `part`, in stored order, and the names of the parts; `part` is an index into the names.
        """
        infos = self._infos()
        names = [info.base_name for info in infos]
        if not infos:
            return pl.LazyFrame(schema={"id": pl.Int64, "part": pl.UInt32}), names
        part = pl.col("part").cast(pl.Enum(names)).to_physical().cast(pl.UInt32)
        return self._current(infos, ["id"], "part").select("id", part), names

    def part_of(self, id_: int) -> str | None:
        """Return the name of the part with the current row of an id; None if nothing is stored for it."""
        where, parts = self.locate()
        rows = where.filter(pl.col("id") == id_).collect(engine="streaming")
        return parts[rows["part"][0]] if rows.height else None

    def read(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Read some columns of one part.

        Raises:
            UserError: As in `scan`.
        """
        return read_part(self.folder, part, self.remedy, self._fields(columns))

    def _fields(self, names: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(name) for name in names])

    def _current(
        self, infos: Sequence[pafs.FileInfo], columns: Sequence[str], name_column: str | None = None
    ) -> pl.LazyFrame:
        by_writer: dict[str, list[pafs.FileInfo]] = {}
        for info in infos:
            by_writer.setdefault(writer_of(info.base_name), []).append(info)
        keyed = columns if len(by_writer) == 1 else dict.fromkeys([*columns, self.key])
        frames = [self._of_writer(group, list(keyed), name_column) for group in by_writer.values()]
        if len(frames) == 1:
            return frames[0]
        keys = [frame.select(self.key) for frame in frames]
        current = [  # a writer never repeats an id, so only later writers have newer rows
            frame.join(pl.concat(keys[age:]), on=self.key, how="anti") for age, frame in enumerate(frames[:-1], start=1)
        ]
        return pl.concat([*current, frames[-1]])

    def _of_writer(
        self, infos: Sequence[pafs.FileInfo], columns: Sequence[str], name_column: str | None
    ) -> pl.LazyFrame:
        """Return the rows of one job's parts. Count control tokens here if the job's version did not count them."""
        texts = {name: text for name in columns if (text := text_of(self.schema.field(name)))}
        if texts:
            stored = footer_of(self.folder, infos[0], self.remedy).schema.names
            texts = {name: text for name, text in texts.items() if name not in stored and text in stored}
        fields = self._fields(list(dict.fromkeys([*columns, *texts.values()])))
        frame = scan_parts(self.folder, infos, fields, self.remedy, name_column=name_column)
        if not texts:
            return frame
        counts = {name: pl.col(text).str.count_matches(CONTROL_TOKEN) for name, text in texts.items()}
        counted = [count.clip(upper_bound=MAX_COUNT).cast(pl.Int8).alias(name) for name, count in counts.items()]
        return frame.with_columns(counted).select(columns)

    def next_writer(self) -> str:
        """Return a writer name for a new job. It sorts after all existing ones."""
        generation = max((int(writer_of(n).split("-")[0]) for n in self.parts()), default=0) + 1
        return f"{generation:06d}-{uuid.uuid4().hex[:8]}"

    def append(self, rows: pa.Table, writer: str, provenance: Mapping[str, object]) -> str:
        """Write `rows` as one part, atomically, and return its name.

        Args:
            rows: Columns of `schema`, each id once. A part without rows only records the columns.
            writer: From `next_writer`.
            provenance: What computed the rows; stored in the part's Parquet metadata under `vl3syn`.
        """
        rows = rows.select(self.schema.names).cast(self.schema)
        rows = rows.replace_schema_metadata({"vl3syn": json.dumps(dict(provenance), sort_keys=True)})
        ids = rows["id"].combine_chunks().to_numpy(zero_copy_only=False)
        smallest = int(ids.min()) + (1 << 63) if len(ids) else 0
        digest = hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()
        name = f"{_PART}{writer}-{smallest:016x}-{digest}{_SUFFIX}"
        # Dictionary encoding saves no space for embeddings, and reading them takes four times as long.
        repeating = [_leaf(field) for field in self.schema if not is_embedding(field)]
        self.folder.write(name, to_bytes(rows, repeating, name))
        return name

    @classmethod
    def stored(cls, folder: Folder) -> Table:
        """Open the table in `folder` with all columns that any job has written (`id`, `error` and `retry` if none has).

        One job has one version, so one part per job is read. If a column has two types, the newest one counts.
        """
        infos = cls(folder, table_schema(pa.schema([])))._infos()
        newest_of_each = {writer_of(info.base_name): info for info in infos}
        fields: dict[str, pa.Field] = {}
        for info in reversed(newest_of_each.values()):
            for field in footer_of(folder, info, REMEDY).schema:
                fields.setdefault(field.name, field)
        writes = [field for name, field in fields.items() if name not in _OF_EVERY_TABLE]
        return cls(folder, table_schema(pa.schema(writes)))

    def provenance(self, part: str | None = None) -> dict[str, object]:
        """Return the provenance of a part, by default the newest, as given to `append`; empty if there is no part."""
        infos = [info for info in self._infos() if part in (None, info.base_name)]
        return self._provenance_in(infos[-1]) if infos else {}

    def provenances(self) -> dict[str, dict[str, object]]:
        """Return the provenance of each writer, from its last part."""
        one_of_each = {writer_of(info.base_name): info for info in self._infos()}
        return {writer: self._provenance_in(info) for writer, info in one_of_each.items()}

    def provenances_of(self, writer: str) -> list[dict[str, object]]:
        """Return the provenance of each part of one writer."""
        return [self._provenance_in(info) for info in self._infos() if writer_of(info.base_name) == writer]

    def _provenance_in(self, info: pafs.FileInfo) -> dict[str, object]:
        meta = footer_of(self.folder, info, self.remedy).schema.metadata
        provenance: dict[str, object] = json.loads((meta or {}).get(b"vl3syn", b"{}"))
        return provenance


def fingerprint(what: Mapping[str, object]) -> str:
    """Return a hash of `what`: eight hex digits."""
    canonical = json.dumps(what, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=4).hexdigest()


def _leaf(field: pa.Field) -> str:
    """Return Parquet's name for the values of a column."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def writer_of(name: str) -> str:
    """Return the writer (job) of the part called `name`."""
    return name.removeprefix(_PART).rsplit("-", 2)[0]
