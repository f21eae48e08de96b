"""The code that runs in workers when clips are published: cut films, and write records into shards."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from core.errors import BadSampleError, UserError
from core.films import FilmFile
from core.records import Record
from manifests.record_files import row_of, schema
from pipeline.execution.inputs import Inputs
from pipeline.execution.lookahead import started_ahead
from pipeline.execution.ray_job import map_blocks
from pipeline.execution.receipts import receipt, reported
from pipeline.pools.images import IMAGE_ADDRESS
from pipeline.publishing.clips.media import ClipMedia
from pipeline.publishing.clips.publication import Account, ClipPublication, account_name, shard_name
from pipeline.publishing.clips.records import NOTHING, ClipRecords, Dataset, records_of
from pipeline.publishing.shard_job import NUMBER, POSITION

if TYPE_CHECKING:
    from ray.data import Dataset as RayDataset

_THREADS = 4  # clips that are cut at the same time by a worker: FFmpeg works outside of Python's lock
_ROWS_PER_GROUP = 1_000
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class ClipShardWriter:
    """Writes shards of records in local workers or Ray tasks.

    Attributes:
        publication: The publication.
        inputs: Adds columns to a block of ids, and knows the pool.
        dataset: What all records have in common.
        media: Makes the medium of each clip.
    """

    publication: ClipPublication
    inputs: Inputs
    dataset: Dataset
    media: ClipMedia

    def job(self, dataset: RayDataset, alone: bool = False) -> RayDataset:
        """Return the Ray Data job; `alone` changes nothing, since each block has a task of its own."""
        return map_blocks(dataset, reported, fn_kwargs={"call": self.write}, num_cpus=1)

    def write(self, block: pa.Table) -> pa.Table:
        """Write the missing shards of a block; return a receipt.

        Raises:
            UserError: A film cannot be read now, or a file cannot be written.
        """
        begin = time.time()
        rows = self.inputs.complete(block)
        for number in pc.unique(rows[NUMBER]).sort().to_pylist():
            self._write_number(number, rows.filter(pc.equal(rows[NUMBER], number)).sort_by(POSITION))
        return receipt(rows.num_rows, 0, begin)

    def _write_number(self, number: int, rows: pa.Table) -> None:
        """Write what is missing of the shards with a number. They appear after all clips and the account are there."""
        out, subsets = self.publication.out, self.publication.subsets
        names = {subset: shard_name(subset, number) for subset in subsets}
        records, rejected, licences = (Counter[str]() for _ in range(3))
        left_out: dict[str, str] = {}
        with ExitStack() as stack:
            shards = {
                subset: stack.enter_context(_Shard(stack.enter_context(out.join(subset).writing(name.split("/")[1]))))
                for subset, name in names.items()
                if not out.exists(name)
            }
            for row, made in self._clips(rows, number):
                if isinstance(made, str):
                    left_out[str(row["id"])] = made
                    continue
                licences[row["license"] or _UNKNOWN] += 1
                rejected += made.rejected
                for subset, of_subset in made.records.items():
                    records[subset] += len(of_subset)
                    if subset in shards:
                        shards[subset].write(of_subset)
            account = Account(dict.fromkeys(subsets, 0) | dict(records), left_out, dict(rejected), dict(licences))
            if len(shards) < len(subsets) and account != self.publication.account(number):
                raise UserError(
                    f"publish: films of shard {number} are not what they were when it was written: bring them back, or "
                    "delete all shards of that number"
                )
            self.publication.lists.write(account_name(number), account.to_bytes())

    def _clips(self, rows: pa.Table, number: int) -> Iterator[tuple[Mapping[str, Any], ClipRecords | str]]:
        """Yield each clip with its records, or why it is left out, in the order of the shard."""
        with ThreadPoolExecutor(_THREADS) as threads:
            entries = (row for batch in rows.to_batches(max_chunksize=64) for row in batch.to_pylist())
            tasks = ((row, threads.submit(self._clip, row, number)) for row in entries)
            for row, task in started_ahead(tasks, 2 * _THREADS):
                yield row, task.result()

    def _clip(self, row: Mapping[str, Any], number: int) -> ClipRecords | str:
        """Return the records of a clip, or why it is left out."""
        images = self.inputs.images
        assert images is not None
        film = images.pool.film(images.root, *(row[name] for name in IMAGE_ADDRESS))
        try:
            made = records_of(row, self.dataset)
            if not any(made.records.values()):
                return _nothing(made)
            _refuse_missing(film)
            return made.of(self.media.medium(row, film, number))
        except UserError:
            raise
        except (BadSampleError, ValidationError) as error:
            return " ".join(str(error).split())
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise UserError(f"publish: {film}: {reason}; what is written stays, run again to go on") from error


def _nothing(made: ClipRecords) -> str:
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in sorted(made.rejected.items()))
    return f"{NOTHING} ({reasons})" if reasons else NOTHING


def _refuse_missing(film: FilmFile) -> None:
    """Refuse a film that was deleted.

    Raises:
        BadSampleError: Its folder has other files.
        UserError: Its folder is missing or empty, as that of a disk that is not mounted.
    """
    if film.file is None or os.path.exists(film.file):
        return
    folder = os.path.dirname(film.file)
    if not os.path.isdir(folder) or not os.listdir(folder):
        raise UserError(f"publish: {folder}: the films are not there; bring them back, and run again to go on")
    raise BadSampleError("missing: the pool has deleted the film since it was indexed")


class _Shard:
    """A shard of records that is being written."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, schema(), compression="zstd", write_page_checksum=True)
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, records: Sequence[Record]) -> None:
        self._waiting += [row_of(record) for record in records]
        if len(self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema()))
            self._waiting = []
