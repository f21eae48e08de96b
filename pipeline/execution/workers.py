"""Workers of a stage: load it once, then compute and store one part after another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from core.stages import Facts, ImageFacts
from manifests.answer_memory import AnswerMemory
from manifests.journal import Journal
from pipeline.execution.content_check import ContentCheck
from pipeline.execution.image_pipeline import ImagePipeline
from pipeline.execution.receipts import reported
from pipeline.execution.stage_task import StageTask

Call = Callable[[pa.Table], pa.Table]
"""A function that computes and stores a block of rows, and returns its receipt."""


class StageWorker:
    """A worker of a stage that loads a model or a fitted artifact: computes and stores one part after another."""

    def __init__(self, task: StageTask) -> None:
        """Load the stage.

        Raises:
            UserError: It cannot be loaded, or its weights are not those that computed what is stored.
        """
        self._task, self._facts = task.loaded()

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._task.compute(rows, cast(Facts, self._facts))


class ImageStageWorker(StageWorker):
    """A worker of an `ImageStage`, with an `ImagePipeline`.

    It may be called for two parts at once: the images of the next part are decoded while the last batch of this part is
    in the model. A journaled stage writes its rows to a journal until their part is complete, and the answers about a
    row to a memory until the row is.
    """

    def __init__(self, task: StageTask, threads: int, seconds: float, first_errors: int) -> None:
        super().__init__(task)
        facts = cast(ImageFacts, self._facts)
        memory = AnswerMemory(task.store.table.folder) if task.stage.journaled else None
        facts.memory = memory
        self._pipeline = ImagePipeline(self._task, facts, threads, seconds, first_errors, memory)

    def __call__(self, rows: pa.Table) -> pa.Table:
        begin, task = time.time(), self._task
        journaled = task.stage.journaled
        check = ContentCheck(task.contents, rows, journaled=journaled) if task.contents else None
        journal = Journal(task.store.table, rows["id"], task.store.provenance) if journaled else None
        tables, todo, busy = [], rows, 0.0
        facts = cast(ImageFacts, self._facts)
        if journal:
            tables = [journal.left_behind]
            todo = rows.filter(pc.invert(pc.is_in(rows["id"], journal.left_behind["id"])))
        if todo.num_rows:
            computed, busy = self._pipeline.compute(task.inputs.complete(todo), check, journal)
            tables.append(computed)
        if check:
            check.store()
        part = pa.concat_tables(tables)
        receipt = task.store(
            part.take(pc.index_in(rows["id"], part["id"])),
            begin,
            busy if facts.has_model else None,
            check.bytes_read if check else 0,
            _sum(part, task.stage.token_column),
        )
        if journal:
            journal.delete()
        if check:
            check.delete_journal()
        return receipt


def _sum(part: pa.Table, column: str | None) -> int:
    return (pc.sum(part[column]).as_py() or 0) if column else 0


class Loaded:
    """A worker, or the error of its loading, which is raised with the first part.

    A process that fails while it loads would count as lost.
    """

    def __init__(self, make: Callable[[], Call]) -> None:
        self._error: Exception | None = None
        try:
            self._call = make()
        except Exception as error:
            self._error = error

    def __call__(self, rows: pa.Table) -> pa.Table:
        if self._error:
            raise self._error
        return self._call(rows)


class StageActor:
    """A Ray actor that holds a worker."""

    def __init__(self, make: Callable[[], Call]) -> None:
        import ray

        if not ray.get_gpu_ids():  # Ray does not hide the GPUs that an actor did not request
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._loaded = Loaded(make)

    def __call__(self, block: pa.Table) -> pa.Table:
        return reported(block, self._loaded)
