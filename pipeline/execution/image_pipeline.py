"""Compute the facts of images: threads read and decode ahead, so that the model does not wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice, repeat
from threading import BoundedSemaphore
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadSampleError, UserError
from core.films import FilmFile, FilmLostError
from core.images import decode, portable
from core.stages import ENCODED, FILM, IMAGE, MEDIA_INPUTS, PORTABLE, ImageFacts
from manifests.answer_memory import AnswerMemory
from manifests.journal import Journal
from pipeline.execution.content_check import ContentCheck
from pipeline.execution.decoders import Decoders
from pipeline.execution.first_answers import FirstAnswers
from pipeline.execution.lookahead import started_ahead
from pipeline.execution.stage_task import StageTask, failed_rows, validate_output, with_ids
from pipeline.pools.images import IMAGE_ADDRESS, Failure

_READERS = 16  # threads that wait for the disk or the network
_IMAGES_AHEAD = 512  # prepared images at most, unless two batches are more
_READS_AHEAD = 16  # groups of neighbouring images, at most 8 MiB each (Parquet: a row group)

T = TypeVar("T")


@dataclass(frozen=True)
class ModelCall:
    """One batch for the model.

    Attributes:
        ids: The ids of its images.
        prepared: What `ImageFacts.prepare` returned for each image.
        first_number: Number of its first image, from `FirstAnswers.take_numbers`.
        journal: Saves the answers at once; None if the stage is not journaled.
    """

    ids: pa.ChunkedArray
    prepared: Sequence[Any]
    first_number: int
    journal: Journal | None


class ImagePipeline:
    """The way of images from the pool to the model, in the order of a block's rows.

        pool ──> read ──────────> decode ───────────────> batch ───────────> model
                 16 threads       `threads` threads       1 full batch       `calls` threads
                 16 groups of     max(2, `calls`)         waits for a        1 batch each
                 at most 8 MiB    batches of images       free thread
                 are ahead        are ahead, at most
                                  512 or 2 batches

    A film is opened by the stage itself, in the second step. A stage that reads only columns, such as stored frames,
    has no first step.

    A step that is full waits for the next one, so these limits bound the memory. An actor has one pipeline, and two
    blocks go through it at once. They share the threads; the other limits apply to each block.
    """

    def __init__(
        self,
        task: StageTask,
        facts: ImageFacts,
        threads: int,
        seconds: float,
        first_errors: int,
        memory: AnswerMemory | None = None,
    ) -> None:
        """Start the threads.

        Args:
            task: The stage, its inputs and batch size.
            facts: The loaded stage.
            threads: Number of threads that decode.
            seconds: Time limit for decoding one image.
            first_errors: The job of a journaled stage ends if so many first images fail with the same error; 0: never.
            memory: The stage's memory of answers about rows that are not finished; None: it has none.
        """
        self._task, self._facts, self._memory = task, facts, memory
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._decoders = Decoders(threads, seconds)
        self._model = ThreadPoolExecutor(facts.calls, "model")
        self._first_answers = FirstAnswers(task.name, first_errors if task.stage.journaled else 0)

    def compute(self, rows: pa.Table, check: ContentCheck | None, journal: Journal | None) -> tuple[pa.Table, float]:
        """Compute the facts of the rows of one block.

        Args:
            rows: The rows, with all columns that the stage reads, except the image.
            check: Compares the images with their stored lengths; None for a stage that reads no images.
            journal: The journal of the block; None if the stage is not journaled.

        Returns:
            The facts, in any order of rows, and the seconds in which the model ran.

        Raises:
            UserError: The model or its server is gone, or all first answers are the same error.
        """
        failures: dict[int, Failure] = {}
        calls: list[Future[tuple[pa.Table, float]]] = []
        free_threads = BoundedSemaphore(self._facts.calls)
        ids = rows["id"].to_pylist()
        with self._first_answers.running_block():
            for batch in _batches(enumerate(self._prepared(rows, check)), self._task.batch_size):
                if check:
                    check.save_contents(ids[row] for row, _ in batch)
                failures |= {row: result for row, result in batch if isinstance(result, Failure)}
                prepared = {row: result for row, result in batch if not isinstance(result, Failure)}
                if not prepared:
                    continue
                free_threads.acquire()
                first_number = self._first_answers.take_numbers(len(prepared))
                call = ModelCall(_id_column(ids, prepared), list(prepared.values()), first_number, journal)
                calls.append(self._model.submit(self._call_model, call))
                calls[-1].add_done_callback(lambda _: free_threads.release())
            results = [call.result() for call in calls]
        computed = self._first_answers.resolve_block([answers for answers, _ in results])
        failed = failed_rows(self._task.stage, _id_column(ids, failures), failures.values())
        return pa.concat_tables([*computed, failed]), sum(seconds for _, seconds in results)

    def _prepared(self, rows: pa.Table, check: ContentCheck | None) -> Iterator[Any]:
        """Yield the prepared image of each row, or a Failure, in order."""
        size = self._task.batch_size
        ahead = max(2 * size, min(self._facts.calls * size, _IMAGES_AHEAD))
        names = [name for name in self._task.stage.reads if name not in MEDIA_INPUTS]
        columns: Iterable[Mapping[str, Any]] = rows.select(names).to_pylist() if names else repeat({}, rows.num_rows)
        decoding = (
            self._decoders.submit(_prepare, medium, values, self._task.stage.reads, self._facts)
            for medium, values in zip(self._media(rows, check), columns, strict=True)
        )
        yield from map(self._decoders.result, started_ahead(decoding, ahead))

    def _media(self, rows: pa.Table, check: ContentCheck | None) -> Iterable[bytes | FilmFile | Failure | None]:
        """Return what each row needs of the pool's files, in order: the encoded image, the film, or nothing."""
        if FILM in self._task.stage.reads:
            return self._films(rows)
        if check is None:
            return repeat(None, rows.num_rows)
        return self._encoded(rows, check)

    def _films(self, rows: pa.Table) -> Iterator[FilmFile]:
        images = self._task.inputs.images
        assert images is not None
        for address in zip(*(rows[name].to_pylist() for name in IMAGE_ADDRESS), strict=True):
            yield images.pool.film(images.root, *address)

    def _encoded(self, rows: pa.Table, check: ContentCheck) -> Iterator[bytes | Failure]:
        """Yield the encoded image of each row, or a Failure, in order."""
        images = self._task.inputs.images
        assert images is not None
        ids, indexed = rows["id"].to_pylist(), rows["bytes"].to_pylist()
        reading = (self._readers.submit(check.read, images, group, ids, indexed) for group in images.groups(rows))
        return chain.from_iterable(read.result() for read in started_ahead(reading, _READS_AHEAD))

    def _call_model(self, call: ModelCall) -> tuple[pa.Table, float]:
        """Run the model on one batch; return the answers as rows of the stage's table, and the seconds that it took."""
        begin = time.perf_counter()
        stage = self._task.stage
        self._first_answers.raise_if_stopped()
        try:
            computed = validate_output(stage, self._facts(call.prepared), len(call.prepared))
        except OSError as error:
            raise UserError(f"{self._task.name}: {' '.join(str(error).split())}") from error
        answers = with_ids(call.ids, computed)
        if call.journal is not None:
            self._first_answers.save(call.first_number, answers, call.journal)
        if self._memory is not None:
            self._memory.finish(answers.filter(pc.invert(answers["retry"]))["id"].to_pylist())
        return answers, time.perf_counter() - begin


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def _id_column(ids: Sequence[int], row_numbers: Iterable[int]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([ids[row] for row in row_numbers], pa.int64())])


def _prepare(
    medium: bytes | FilmFile | Failure | None, columns: Mapping[str, Any], reads: Sequence[str], facts: ImageFacts
) -> Any:
    if isinstance(medium, Failure):
        return medium
    try:
        values = {**columns, FILM: medium, ENCODED: medium}
        if isinstance(medium, bytes) and IMAGE in reads:
            values[IMAGE] = decode(medium, facts.side)
        if isinstance(medium, bytes) and PORTABLE in reads:
            values[PORTABLE] = portable(medium, facts.longest)
        return facts.prepare(*(values[name] for name in reads))
    except BadSampleError as error:
        reason = " ".join(str(error).split())
        name = f"{medium}: " if isinstance(medium, FilmFile) else ""  # the row has it
        return Failure(reason.removeprefix(name), retry=isinstance(error, FilmLostError))
    except MemoryError:
        return Failure("too large: not enough memory to decode and scale it")
