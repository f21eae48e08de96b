"""A table of facts: a folder of Parquet parts that only grows, written by many and readable at any moment."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.embeddings import is_embedding
from manifests.schemas import aligned, table_schema
from manifests.storage import Folder

_PART, _SUFFIX = "part-", ".parquet"


@dataclass(frozen=True)
class Table:
    """Parts named `part-<generation>-<writer>-<smallest id>-<hash of the ids>.parquet`.

    A *writer* is one job. Each job opens the next generation, so names sort by age, and inside of one job an id is
    written once: a task that the engine runs twice writes the same name with the same rows. Of an id's rows the
    newest generation's counts. Parts that hold ascending ranges of ids, as those of stages do, are read in that order.

    Attributes:
        folder: Where the parts are.
        schema: The columns of a part; `append` casts to it, and an empty table has them.
        key: The column whose newest rows count: `id`, or `shard` for the index, which is read shard by shard.
    """

    folder: Folder
    schema: pa.Schema
    key: str = "id"

    @property
    def writes(self) -> pa.Schema:
        """The columns of a stage table that are the stage's own."""
        return pa.schema([field for field in self.schema if field.name not in ("id", "error", "retry")])

    def parts(self) -> list[str]:
        """Names of the parts there are now, oldest generation first."""
        names = [f.base_name for f in self.folder.files()]
        return [n for n in names if n.startswith(_PART) and n.endswith(_SUFFIX)]

    def scan(self) -> pl.LazyFrame:
        """The rows that count, as stored so far; a writer may be adding parts meanwhile."""
        names = self.parts()
        return self._current(names, None) if names else pl.DataFrame(self.schema.empty_table()).lazy()

    def locate(self) -> tuple[pl.LazyFrame, list[str]]:
        """Where the rows that count lie, for readers that want a few of them: columns `id` and `part`, in stored order.

        `part` is a position in the names, which are returned too.
        """
        names = self.parts()
        if not names:
            return pl.LazyFrame(schema={"id": pl.Int64, "part": pl.UInt32}), names
        part = pl.col("part").cast(pl.Enum(names)).to_physical().cast(pl.UInt32)
        return self._current(names, "part").select("id", part), names

    def read(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of one part."""
        with self.folder.filesystem.open_input_file(f"{self.folder.path}/{part}") as file:
            read = pq.ParquetFile(file).read(columns=list(columns))
        return aligned(read, pa.schema([self.schema.field(name) for name in columns]))

    def _current(self, names: Sequence[str], name_column: str | None) -> pl.LazyFrame:
        by_writer: dict[str, list[str]] = {}
        for name in names:
            by_writer.setdefault(writer_of(name), []).append(name)
        # A version that knew fewer columns wrote the older parts: what they lack is null.
        types = pl.DataFrame(self.schema.empty_table()).schema
        scans = [self.folder.scan(group, name_column) for group in by_writer.values()]
        names_ = [*types, *([name_column] if name_column else [])]
        frames = [_with_columns(scan, types).select(names_) for scan in scans]
        keys = [frame.select(self.key) for frame in frames]
        current = [  # a writer never repeats an id, so only later ones have newer rows
            frame.join(pl.concat(keys[age:]), on=self.key, how="anti") for age, frame in enumerate(frames[:-1], start=1)
        ]
        return pl.concat([*current, frames[-1]])

    def next_writer(self) -> str:
        """A name for one job's parts that sorts after all there are."""
        generation = max((int(writer_of(n).split("-")[0]) for n in self.parts()), default=0) + 1
        return f"{generation:06d}-{uuid.uuid4().hex[:8]}"

    def append(self, rows: pa.Table, writer: str, provenance: Mapping[str, object]) -> str:
        """Write `rows` as one part, whole or not at all, and return its name.

        Args:
            rows: Columns of `schema`, each id once. Without rows the part only tells readers the columns.
            writer: From `next_writer`.
            provenance: What computed the rows; goes into the part's Parquet metadata under `vl3syn`.
        """
        rows = rows.select(self.schema.names).cast(self.schema)
        rows = rows.replace_schema_metadata({"vl3syn": json.dumps(dict(provenance), sort_keys=True)})
        ids = rows["id"].combine_chunks().to_numpy(zero_copy_only=False)
        smallest = int(ids.min()) + (1 << 63) if len(ids) else 0
        digest = hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()
        name = f"{_PART}{writer}-{smallest:016x}-{digest}{_SUFFIX}"
        sink = pa.BufferOutputStream()
        # A dictionary of the numbers of embeddings saves nothing, and reading them takes four times as long.
        repeating = [_leaf(field) for field in self.schema if not is_embedding(field)]
        pq.write_table(rows, sink, compression="zstd", use_dictionary=repeating)
        self.folder.write(name, sink.getvalue())
        return name

    @classmethod
    def stored(cls, folder: Folder) -> Table:
        """The table in `folder` with the columns of its newest part (only id, error and retry before the first)."""
        names = cls(folder, table_schema(pa.schema([]))).parts()
        if not names:
            return cls(folder, table_schema(pa.schema([])))
        return cls(folder, pq.read_schema(f"{folder.path}/{names[-1]}", filesystem=folder.filesystem))

    def provenance(self) -> dict[str, object]:
        """What computed the newest rows, as given to `append`; empty for an empty table."""
        meta = Table.stored(self.folder).schema.metadata or {}
        told: dict[str, object] = json.loads(meta.get(b"vl3syn", b"{}"))
        return told


def fingerprint(what: Mapping[str, object]) -> str:
    """Eight hex digits that change when anything in `what` does."""
    canonical = json.dumps(what, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=4).hexdigest()


def _with_columns(frame: pl.LazyFrame, types: pl.Schema) -> pl.LazyFrame:
    stored = frame.collect_schema()
    return frame.with_columns(pl.lit(None, type_).alias(n) for n, type_ in types.items() if n not in stored)


def _leaf(field: pa.Field) -> str:
    """How Parquet calls the values of a column."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def writer_of(name: str) -> str:
    """The job that wrote the part called `name`."""
    return name.removeprefix(_PART).rsplit("-", 2)[0]
