"""The actors that run inside Ray's workers: load a stage once, then compute and store one part after another."""

from __future__ import annotations

import os
import time
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from core.stages import Facts, ImageFacts
from manifests.journal import Journal
from pipeline.execution.content_check import ContentCheck
from pipeline.execution.image_pipeline import ImagePipeline
from pipeline.execution.receipts import reported
from pipeline.execution.stage_task import StageTask


class StageActor:
    """A Ray actor for a stage that loads a model or a fitted artifact."""

    def __init__(self, task: StageTask) -> None:
        import ray

        if not ray.get_gpu_ids():  # Ray does not hide the GPUs that an actor did not request
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._task = task
        self._load_error: Exception | None = None
        try:
            self._task, self._facts = task.loaded()
        except Exception as error:  # raised with the first part: an actor that fails here would count as a lost worker
            self._load_error = error

    def __call__(self, block: pa.Table) -> pa.Table:
        return reported(block, self._store_part)

    def _store_part(self, rows: pa.Table) -> pa.Table:
        if self._load_error:
            raise self._load_error
        return self._compute(rows)

    def _compute(self, rows: pa.Table) -> pa.Table:
        return self._task.compute(rows, cast(Facts, self._facts))


class ImageStageActor(StageActor):
    """A Ray actor for a stage that reads images, with an `ImagePipeline`.

    Ray calls it for two parts at once: the images of the next part are decoded while the last batch of this part is in
    the model. A journaled stage writes its rows to a journal until their part is complete.
    """

    def __init__(self, task: StageTask, threads: int, seconds: float, first_errors: int) -> None:
        super().__init__(task)
        if not self._load_error:
            facts = cast(ImageFacts, self._facts)
            self._pipeline = ImagePipeline(self._task, facts, threads, seconds, first_errors)

    def _compute(self, rows: pa.Table) -> pa.Table:
        begin, task = time.time(), self._task
        assert task.contents is not None
        journaled = task.stage.journaled
        check = ContentCheck(task.contents, rows, journaled=journaled)
        journal = Journal(task.store.table, rows["id"], task.store.provenance) if journaled else None
        tables, todo, busy = [], rows, 0.0
        if journal:
            tables = [journal.left_behind]
            todo = rows.filter(pc.invert(pc.is_in(rows["id"], journal.left_behind["id"])))
        if todo.num_rows:
            computed, busy = self._pipeline.compute(task.inputs.complete(todo), check, journal)
            tables.append(computed)
        check.store()
        part = pa.concat_tables(tables)
        receipt = task.store(part.take(pc.index_in(rows["id"], part["id"])), begin, busy)
        if journal:
            journal.delete()
        check.delete_journal()
        return receipt
