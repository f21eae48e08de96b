"""The code that runs inside Ray's workers: compute a part of a stage in batches, validate it, store it at once."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadSampleError, UserError
from core.images import decode, portable
from core.stages import ENCODED, IMAGE, IMAGE_INPUTS, PORTABLE, Facts, Stage
from manifests.journal import Journal
from manifests.schemas import table_schema
from pipeline.execution.content_check import ContentCheck
from pipeline.execution.decoders import Decoders, Task
from pipeline.execution.first_answers import FirstAnswers
from pipeline.execution.fitting import Fitted
from pipeline.execution.part_writer import Store
from pipeline.execution.planner import Inputs
from pipeline.execution.receipts import reported
from pipeline.pools.images import Failure

_READERS = 16  # threads that wait for the disk or the network
_GROUPS_AHEAD = 16  # reads in progress or waiting to be decoded, at most 8 MiB each (Parquet: a row group)


@dataclass(frozen=True)
class StageTask:
    """The description of a job: how parts of a stage are computed.

    Attributes:
        stage: The stage.
        inputs: Adds the columns that the driver's blocks lack.
        batch_size: Rows per call, at most.
        store: Stores the computed rows.
        contents: Stores lengths and digests of images that were not read before; None if the stage reads no images.
        fitted: The fitted artifact of a trained stage.
        fields: The columns that the stage reads, by name.
    """

    stage: Any
    inputs: Inputs
    batch_size: int
    store: Store
    contents: Store | None = None
    fitted: Fitted | None = None
    fields: Mapping[str, pa.Field] = field(default_factory=dict)

    def load(self) -> Any:
        """Return the stage's callable, with its model."""
        return self.stage.load_fitted(self.fitted.read(), self.fields) if self.fitted else self.stage.load()

    def compute(self, block: pa.Table, facts: Facts | None = None) -> pa.Table:
        """Compute one part of a stage that reads columns, store it at once, and return its receipt."""
        begin = time.time()
        order, tables = [], []
        compute = facts or self.stage
        for numbers, rows in self.inputs.complete_by_type(block):
            order.append(numbers)
            for start in range(0, rows.num_rows, self.batch_size):
                batch = rows.slice(start, self.batch_size)
                computed = validate_output(self.stage, compute(batch.select(list(self.stage.reads))), batch.num_rows)
                tables.append(with_ids(batch["id"], computed))
        return self.store(pa.concat_tables(tables).take(np.argsort(np.concatenate(order))), begin)


class StageActor:
    """A Ray actor for a stage that loads a model or a fitted artifact."""

    def __init__(self, part: StageTask) -> None:
        import ray

        self._part = part
        self._failed: Exception | None = None
        if not ray.get_gpu_ids():  # Ray does not hide the GPUs that an actor did not request
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        try:
            self._facts = part.load()
            provenance = self._facts.provenance
            _same_weights(part, provenance)
            self._part = replace(part, store=part.store.knowing(provenance))
        except Exception as error:  # raised with the first part: an actor that fails here would count as a lost worker
            self._failed = error

    def __call__(self, block: pa.Table) -> pa.Table:
        return reported(block, self._stored)

    def _stored(self, rows: pa.Table) -> pa.Table:
        if self._failed:
            raise self._failed
        return self._compute(rows)

    def _compute(self, rows: pa.Table) -> pa.Table:
        return self._part.compute(rows, self._facts)


class ImageStageActor(StageActor):
    """A Ray actor for a stage that reads images: threads read and decode ahead while others keep the model busy.

    Ray calls it for two parts at once: the images of the next part are decoded while the last batch of this part is in
    the model. A journaled stage writes its rows to a journal until their part is complete.
    """

    def __init__(self, part: StageTask, threads: int, seconds: float, first_errors: int) -> None:
        super().__init__(part)
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._decoders = Decoders(threads, seconds)
        self._calls = 1 if self._failed else self._facts.calls
        self._model = ThreadPoolExecutor(self._calls, "model")
        self._first = FirstAnswers(part.stage.name, first_errors if part.stage.journaled else 0)

    def _compute(self, rows: pa.Table) -> pa.Table:
        begin, part = time.time(), self._part
        journaled = part.stage.journaled
        assert part.contents is not None
        check = ContentCheck(part.contents, rows, journaled=journaled)
        if not journaled:
            computed, busy = self._facts_of(part.inputs.complete(rows), check)
            check.store()
            return part.store(computed, begin, busy)
        journal = Journal(part.store.table, rows["id"], part.store.provenance)
        left = journal.left_behind
        todo = rows.filter(pc.invert(pc.is_in(rows["id"], left["id"])))
        whole, busy = left, 0.0
        if todo.num_rows:
            computed, busy = self._facts_of(part.inputs.complete(todo), check, journal)
            whole = pa.concat_tables([left, computed])
        check.store()
        stored = part.store(whole.take(pc.index_in(rows["id"], whole["id"])), begin, busy)
        journal.delete()
        check.delete_journal()
        return stored

    def _facts_of(self, rows: pa.Table, check: ContentCheck, journal: Journal | None = None) -> tuple[pa.Table, float]:
        """Return the facts of some rows, in their order, and the seconds that the model was busy with them."""
        stage = self._part.stage
        stream = enumerate(self._prepared(rows, check, ahead=max(2, self._calls) * self._part.batch_size))
        failures: dict[int, Failure] = {}
        order: list[int] = []
        running: list[Future[tuple[pa.Table, float]]] = []
        free = BoundedSemaphore(self._calls)  # at most `calls` batches are in the model, and one more is ready
        with self._first.block():
            while batch := list(islice(stream, self._part.batch_size)):
                check.write_down()
                failures |= {row: value for row, value in batch if isinstance(value, Failure)}
                good = {row: value for row, value in batch if not isinstance(value, Failure)}
                if good:
                    free.acquire()
                    order += good
                    ids, number = rows["id"].take(_numbers(good)), self._first.ask(len(good))
                    running.append(self._model.submit(self._batch, ids, list(good.values()), number, journal))
                    running[-1].add_done_callback(lambda _: free.release())
            done = [future.result() for future in running]
        order += failures
        failed = failed_rows(stage, rows["id"].take(_numbers(failures)), failures.values())
        tables = [*self._first.of_block([table for table, _ in done]), failed]
        return pa.concat_tables(tables).take(_inverse(order)), sum(seconds for _, seconds in done)

    def _batch(
        self, ids: pa.ChunkedArray, prepared: list[Any], number: int, journal: Journal | None
    ) -> tuple[pa.Table, float]:
        """Run the model on one batch; return rows and seconds. `number` counts the images of the job before it."""
        begin = time.perf_counter()
        stage = self._part.stage
        self._first.check()
        try:
            computed = with_ids(ids, validate_output(stage, self._facts(prepared), len(prepared)))
        except OSError as error:
            raise UserError(f"{stage.name}: {' '.join(str(error).split())}") from error
        if journal is not None:
            self._first.write_down(number, computed, journal)
        return computed, time.perf_counter() - begin

    def _prepared(self, rows: pa.Table, check: ContentCheck, ahead: int) -> Iterator[Any]:
        """Yield the prepared image of each row, or a Failure, in order; at most `ahead` are decoded in advance."""
        reads, images = self._part.stage.reads, self._part.inputs.images
        assert images is not None
        groups, ids, lengths = images.groups(rows), rows["id"].to_pylist(), rows["bytes"].to_pylist()
        others = iter(rows.select([name for name in reads if name not in IMAGE_INPUTS]).to_pylist() or repeat({}))
        reading: deque[Future[list[bytes | Failure]]] = deque()
        encoded: deque[bytes | Failure] = deque()
        decoding: deque[Task] = deque()
        while True:
            for group in islice(groups, _GROUPS_AHEAD - len(reading)):
                reading.append(self._readers.submit(check.read, images, group, ids, lengths))
            while len(decoding) < ahead and (encoded or reading):
                if not encoded:
                    encoded.extend(reading.popleft().result())
                task = self._decoders.submit(_prepare, encoded.popleft(), next(others), reads, self._facts)
                decoding.append(task)
            if not decoding:
                return
            yield self._decoders.result(decoding.popleft())


def validate_output(stage: Stage, computed: pa.Table, rows: int) -> pa.Table:
    """Validate the output of a stage for `rows` rows; return the columns of its table, without the id.

    Raises:
        TypeError: The output has another number of rows.
    """
    schema = table_schema(stage.writes)
    if computed.num_rows != rows:
        raise TypeError(f"{stage.name} made {computed.num_rows} rows of {rows}")
    for name, type_, default in (("error", pa.string(), None), ("retry", pa.bool_(), False)):
        if name not in computed.column_names:
            computed = computed.append_column(name, pa.array([default] * rows, type_))
    wanted = pa.schema([field for field in schema if field.name != "id"])
    return computed.select(wanted.names).cast(wanted)


def with_ids(ids: pa.ChunkedArray, computed: pa.Table) -> pa.Table:
    return computed.add_column(0, "id", ids)


def _prepare(data: bytes | Failure, others: Mapping[str, Any], reads: Sequence[str], facts: Any) -> Any:
    if isinstance(data, Failure):
        return data
    try:
        read = dict(others)
        if IMAGE in reads:
            read[IMAGE] = decode(data, facts.side)
        if PORTABLE in reads:
            read[PORTABLE] = portable(data, facts.longest)
        read[ENCODED] = data
        return facts.prepare(*(read[name] for name in reads))
    except BadSampleError as error:  # BadImageError is one
        return Failure(" ".join(str(error).split()))
    except MemoryError:
        return Failure("too large: the memory does not hold what it is to be scaled to")


def failed_rows(stage: Stage, ids: pa.ChunkedArray, reasons: Collection[Failure]) -> pa.Table:
    """Return rows without facts, each with its error."""
    failures = list(reasons)
    empty = {field.name: pa.nulls(len(failures), field.type) for field in stage.writes}
    errors, retries = [f.error for f in failures], [f.retry for f in failures]
    flags = {"error": pa.array(errors, pa.string()), "retry": pa.array(retries, pa.bool_())}
    return with_ids(ids, validate_output(stage, pa.table({**empty, **flags}), len(failures)))


def _inverse(order: list[int]) -> pa.Array:
    return _numbers(sorted(range(len(order)), key=order.__getitem__))


def _numbers(places: Iterable[int]) -> pa.Array:
    return pa.array(list(places), pa.int64())


def _same_weights(part: StageTask, provenance: Mapping[str, object]) -> None:
    """Refuse to store facts in a table whose facts were computed with other weights."""
    before = part.store.table.provenance().get("weights")
    now = provenance.get("weights")
    if before and now and before != now:
        raise UserError(
            f"{part.stage.name}: its weights ({str(now)[:12]}…) are not those that computed what is stored "
            f"({str(before)[:12]}…); restore them, or give the new ones a path of their own"
        )
