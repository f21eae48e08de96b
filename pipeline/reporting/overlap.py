"""Search for a benchmark in what a model would be trained on; count and write what is found."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from core.cpus import count_cpus
from core.errors import BadSampleError, UserError
from core.paths import check_replaceable
from core.text import printable
from filters.overlap.benchmark import Benchmark, Found, Hit
from filters.overlap.ids import BlockedIds
from manifests.storage import Folder
from pipeline.execution.lookahead import started_ahead
from pipeline.reporting.training_rows import TrainingRow

KINDS = ("file", "pixels", "picture", "crop", "embedding", "text", "id")
"""Kinds of hits, the surest first."""

OF = {"text": "texts", "id": "rows"}
"""What a kind is a share of, if not of the images."""

_AHEAD = 64  # rows that are searched at the same time, or wait for that
_PART = 4096  # hits of a row group

SCHEMA = pa.schema(
    [
        ("data_id", pa.string()),
        ("kind", pa.string()),
        ("benchmark_id", pa.string()),
        ("overlap", pa.float32()),
        ("distance", pa.int32()),
        ("with_question", pa.bool_()),
        ("benchmark_text", pa.string()),
        ("text", pa.string()),
    ]
)
"""The columns of a file of hits."""

WriteHit = Callable[[dict[str, Any]], None]


@dataclass
class Overlap:
    """What was searched and found.

    Attributes:
        rows: Rows of the data.
        images: Images that were searched.
        texts: Rows with a text.
        films: Films, which are not searched.
        found: Rows with a hit of each kind; a row may count for several.
        found_rows: Rows with any hit.
        generic: Rows that share nothing but a generic question with the benchmark; they do not count as found.
        benchmark_rows: Ids of the benchmark's rows with a hit, and the number of hits.
        unread: Rows, turns or images that could not be read.
        faults: The first reasons.
    """

    rows: int = 0
    images: int = 0
    texts: int = 0
    films: int = 0
    found: Counter[str] = field(default_factory=Counter)
    found_rows: int = 0
    generic: int = 0
    benchmark_rows: Counter[str] = field(default_factory=Counter)
    unread: int = 0
    faults: list[str] = field(default_factory=list)

    def of(self, kind: str) -> int:
        """Return the number that the rows with a hit of a kind are a part of."""
        return int(getattr(self, OF.get(kind, "images")))


def search(rows: Iterable[TrainingRow], benchmark: Benchmark, ids: BlockedIds | None, write: WriteHit) -> Overlap:
    """Search for a benchmark in rows, which are read once and not kept. Hits are written in the order of the rows.

    Raises:
        UserError: There are no rows, or nothing of them could be read.
    """
    overlap = Overlap()
    with ThreadPoolExecutor(count_cpus(), "overlap") as threads:
        searching = (threads.submit(_search, row, benchmark, ids) for row in rows)
        for future in started_ahead(searching, _AHEAD):
            _count(overlap, *future.result(), write)
    if not overlap.rows:
        raise UserError("the data have no rows: nothing was searched")
    if not overlap.images and not overlap.texts:
        raise UserError(f"nothing of {overlap.rows:,} rows could be searched; the first: {overlap.faults[:1]}")
    return overlap


def _search(
    row: TrainingRow, benchmark: Benchmark, ids: BlockedIds | None
) -> tuple[TrainingRow, Found, list[str], list[str]]:
    """Return a row without its images, what was found, the blocked ids, and why images cannot be decoded."""
    pictures, faults = [], []
    for data in row.images:
        try:
            pictures.append((data, benchmark.decoded(data)))
        except BadSampleError as error:
            faults.append(f"{row.id}: {error}")
    try:
        found = benchmark.search(pictures, row.texts)
    except BadSampleError:  # an image without an embedding, or one that is broken behind its first scan
        good = []
        for picture in pictures:
            try:
                benchmark.search([picture], ())
                good.append(picture)
            except BadSampleError as error:
                faults.append(f"{row.id}: {error}")
        found = benchmark.search(good, row.texts)
    return row, found, ids.search([row.id, *row.names]) if ids else [], faults


def _count(
    overlap: Overlap, row: TrainingRow, found: Found, blocked: list[str], faults: list[str], write: WriteHit
) -> None:
    faults = [*row.faults, *faults]
    overlap.rows += 1
    overlap.images += len(row.images) - (len(faults) - len(row.faults))
    overlap.texts += bool(row.texts)
    overlap.films += row.films
    overlap.unread += len(faults)
    overlap.faults += faults[: max(0, 10 - len(overlap.faults))]
    hits = [*found.hits, *(Hit("id", one, 1.0, text=one) for one in blocked)]
    overlap.found_rows += bool(hits)
    overlap.generic += bool(found.generic and not hits)
    overlap.found.update({hit.kind for hit in hits})
    overlap.benchmark_rows.update({hit.benchmark_id for hit in hits if hit.kind != "id"})
    for hit in hits:
        write({"data_id": printable(row.id), **asdict(hit)})


@contextmanager
def writing(path: str | None) -> Iterator[WriteHit]:
    """Write hits to a .jsonl or .parquet file, which appears when all are written. Without a path they are dropped."""
    if path is None:
        yield lambda hit: None
        return
    folder, name = _target(path)
    with folder.writing(name) as file:
        if name.endswith(".parquet"):
            with _parquet(file) as write:
                yield write
        else:
            yield lambda hit: _write_line(file, hit)


def check_target(path: str) -> None:
    """Check that hits can be written there, before anything is read.

    Raises:
        UserError: It ends with something else than .jsonl or .parquet, or is a folder, pipe or device.
    """
    if not path.endswith((".jsonl", ".parquet")):
        raise UserError(f"--out {path}: name a file that ends with .jsonl or .parquet")
    folder, name = _target(path)
    if folder.local:
        check_replaceable(f"{folder.path}/{name}", "--out")


def _target(path: str) -> tuple[Folder, str]:
    folder, name = os.path.split(path if "://" in path else os.path.realpath(path))
    return Folder.at(folder), name


def _write_line(file: BinaryIO, hit: dict[str, Any]) -> None:
    file.write(json.dumps(hit, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[WriteHit]:
    waiting: list[dict[str, Any]] = []
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, SCHEMA))
            waiting.clear()

        def write(hit: dict[str, Any]) -> None:
            waiting.append(hit)
            if len(waiting) == _PART:
                flush()

        yield write
        if waiting:
            flush()
