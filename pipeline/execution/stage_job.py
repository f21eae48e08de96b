"""Run one stage of a recipe, for the alive rows without facts of it: as a Ray Data job, or few rows in the driver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from core.stages import FILM, IMAGE, IMAGE_INPUTS, PORTABLE, FittedStage, ImageStage, LoadedStage, Stage
from manifests.compaction import sweep
from manifests.contents import contents_table
from manifests.run import Run, stage_folder
from manifests.schemas import table_schema
from manifests.tables import Table
from manifests.verdict import StoredStage
from manifests.version import __version__
from pipeline.execution.driver_job import run_in_driver
from pipeline.execution.fitting import find_fitted, is_trained
from pipeline.execution.grouping import Groups, changed_groups, cut, group_column
from pipeline.execution.job_columns import columns_of
from pipeline.execution.job_result import JobResult, JobStats, LocalResult
from pipeline.execution.local_workers import LocalWorkers, is_for_local_workers, ready
from pipeline.execution.part_writer import Store, contents_store
from pipeline.execution.placement import Placement, is_for_driver, place_locally, place_workers
from pipeline.execution.planner import plan, stored_table, unstored
from pipeline.execution.pool_columns import check_pool_columns
from pipeline.execution.precision import in_one_precision
from pipeline.execution.progress import Progress
from pipeline.execution.ray_job import Job, map_blocks, run_job
from pipeline.execution.receipts import Observe, reported
from pipeline.execution.rescue import RowRescue
from pipeline.execution.selection import Selection
from pipeline.execution.stage_task import StageTask
from pipeline.execution.unfinished_rows import forget_answers, recover_journals
from pipeline.execution.workers import Call, ImageStageWorker, StageActor, StageWorker
from pipeline.recipe import Recipe, Step
from pipeline.stages.download.stage import Download
from pipeline.stages.download.storage import images_folder, refuse_elsewhere, sweeping
from pipeline.stages.download.summary import summary
from pipeline.stages.registry import outdated

if TYPE_CHECKING:
    from ray.data import Dataset

_AT_ONCE = 2
"""Parts that a worker with images has at a time: one is decoded (or fetched) while the other keeps the model busy (or
is stored)."""

PART, JOURNALED_PART, DOWNLOADED_PART, GROUPED_PART = 65_536, 1024, 4096, 1 << 20
"""Default maximum of rows per stored part. A part of whole groups has more if one group is larger."""

DECODED = "decoded"
"""Key of a part's provenance: whether the image of each row without an error was decoded. Earlier versions lack it."""


def run_stage(
    run: Run, recipe: Recipe, step: Step, stored: StoredStage, alive: pl.DataFrame, local: LocalWorkers | None = None
) -> JobResult:
    """Compute and store the missing facts of a stage.

    Args:
        run: The run.
        recipe: Its recipe.
        step: The stage, as a step of the recipe.
        stored: The table and rules of the stage.
        alive: The rows that reach the stage, column `id`, sorted.
        local: Workers for few rows; None: Ray's.

    Raises:
        UserError: A model is not available, or `run_job` raised it.
    """
    begin = time.perf_counter()
    recover_journals(run, step, stored.table)
    _add_columns(stored.table)
    # If no row is alive, the table of an earlier stage may be empty and have no columns to read.
    groups = read_groups(run, step, alive) if alive.height and group_column(step) else None
    chosen = rows_to_compute(step, stored, alive, groups) if alive.height else Selection.all_of(alive)
    rows = chosen.height
    up_to_date = alive.height - rows
    if not rows:
        forget_answers(step, stored.table, alive)
        return JobResult.nothing_computed(step.name, up_to_date, time.perf_counter() - begin)
    step.stage.check_available()
    check_pool_columns(step, recipe.pool, run.index)
    step = in_one_precision(step, stored.table, rows, local)
    sweep(stored.table)
    if isinstance(step.stage, ImageStage):
        sweep(contents_table(run.folder))
    images = images_folder(step.stage.images, run.folder) if isinstance(step.stage, Download) else None
    if images:
        refuse_elsewhere(images, stored.table)
    planned, inputs = plan(run, recipe, columns_of(step), chosen, grouped=groups is not None)
    blocks = cut(planned, part_size(rows, step), groups)
    of_ids = None if groups is None else partial(read_groups, run, step)
    task = StageTask(
        stage=step.stage,
        name=step.name,
        inputs=inputs,
        batch_size=_batch_size(step) if of_ids is None and images is None else rows,  # a part is one call
        store=Store(stored.table, stored.table.next_writer(), stage_provenance(step)),
        contents=contents_store(run) if reads_images(step.stage) else None,
        fitted=find_fitted(run.folder, step) if is_trained(step) else None,
        fields=step.fields,
        images=images,
    )
    del planned, chosen, groups  # some bytes per row, for as long as the job takes
    progress = Progress(step.name, rows, recipe.pool.noun)
    with sweeping(images, stored.table) if images else nullcontext(), progress:
        try:
            stats = _run_task(step, task, blocks, rows, of_ids, local, progress)
        finally:
            task.store.forget_model()
    forget_answers(step, stored.table, alive)
    notes = summary(stored.table, task.store.writer, stats.working) if images else ()
    return JobResult.of(step.name, stats, stored=up_to_date, notes=notes)


def _run_task(
    step: Step,
    task: StageTask,
    blocks: Sequence[pa.Table],
    rows: int,
    groups_of: Callable[[pl.DataFrame], Groups] | None,
    local: LocalWorkers | None,
    observe: Observe,
) -> JobStats:
    """Compute and store blocks of so many rows: in this process, in local workers, or in Ray's."""
    if is_for_driver(step.stage, step.resources, rows):
        return run_in_driver(blocks, task, observe)
    done = LocalResult(untried=blocks)
    if local and is_for_local_workers(step.stage, step.resources, rows):
        placement = place_locally(step.resources, step.stage, rows)
        make = _worker(step, task, placement)
        at_once = _AT_ONCE if isinstance(step.stage, ImageStage | Download) else 1
        threads = math.ceil(placement.num_cpus)
        done = local.run(blocks, make, placement.workers, observe, threads, at_once)
    if local and (done.untried or done.lost or step.stage.journaled):
        local.close()  # Ray needs their memory; a server of captions ends with its process
    return run_job(done.untried, _ray_job(step, task), RowRescue(task, groups_of), done, observe)


def reads_images(stage: Stage) -> bool:
    """Return whether a stage reads images of the pool: not films, and not only columns."""
    return not set(IMAGE_INPUTS).isdisjoint(stage.reads)


def part_size(rows: int, step: Step) -> int:
    """Return the rows per stored part: a 64th of `rows`, at least 64 or 256, at most `part_rows` of the recipe.

    For a stage that compares rows, `part_rows` is the size itself. Each of its parts reads the tables again, so users
    may want few large parts.
    """
    grouped, requested = group_column(step) is not None, step.resources.part_rows
    if grouped and requested:
        return requested
    least = 64 if isinstance(step.stage, ImageStage) else 256
    most = GROUPED_PART if grouped else JOURNALED_PART if step.stage.journaled else PART
    most = DOWNLOADED_PART if isinstance(step.stage, Download) else most
    return min(max(rows // 64, least), requested or most)


def stage_table(run: Run, step: Step) -> Table:
    """Return the table of a step, with the columns that the stage writes in this version."""
    return Table(stage_folder(run.folder, step.table), table_schema(step.stage.writes))


def stage_provenance(step: Step) -> dict[str, object]:
    """Return the provenance of a step's parts. A worker adds what only the loaded stage knows, such as the weights."""
    return {
        "stage": step.stage.name,
        "version": step.stage.version,
        "settings": step.written.model_dump(mode="json"),
        "inputs": dict(step.inputs),
        DECODED: not {IMAGE, PORTABLE}.isdisjoint(step.stage.reads),
        "vl3syn": __version__,
    }


def _add_columns(table: Table) -> None:
    """Append an empty part with the current columns if no part has them: readers infer the columns from the parts."""
    if table.parts() and not set(table.schema.names) <= set(Table.stored(table.folder).schema.names):
        table.append(table.schema.empty_table(), table.next_writer(), table.provenance())


def read_groups(run: Run, step: Step, alive: pl.DataFrame) -> Groups:
    """Return the group of each row of `alive` (column `id`, sorted), for a stage that compares rows."""
    column = group_column(step)
    assert column is not None
    return Groups.read(stored_table(run, step.inputs.get(column, "")), column, Selection.all_of(alive))


def rows_to_compute(step: Step, stored: StoredStage, alive: pl.DataFrame, groups: Groups | None) -> Selection:
    """Select the rows of `alive` without facts or with outdated ones; with `groups`, all rows of the changed groups."""
    rows = unstored(stored.table, alive)
    wrong = outdated(step.stage, stored.table)
    if wrong.height:
        rows = rows.with_ids(wrong)
    return rows if groups is None else changed_groups(rows, stored, groups)


def _batch_size(step: Step) -> int:
    return step.resources.batch_size or step.stage.batch_size or (64 if isinstance(step.stage, ImageStage) else 1024)


def _worker(step: Step, task: StageTask, placement: Placement) -> Callable[[], Call]:
    """Return what makes a worker of the stage, in the process that it will run in."""
    if isinstance(step.stage, ImageStage):
        limits = step.resources
        seconds = limits.film_seconds if FILM in step.stage.reads else limits.image_seconds
        return partial(ImageStageWorker, task, placement.threads, seconds, limits.first_errors)
    if isinstance(step.stage, LoadedStage | FittedStage):
        return partial(StageWorker, task)
    return ready(task.compute)


def _ray_job(step: Step, task: StageTask) -> Job:
    """Return the job that runs a stage over a Ray dataset: one block, one call, one part."""
    first: list[Placement] = []  # if the nodes of a round were lost, the next one waits for others of their kind

    def job(dataset: Dataset, alone: bool = False) -> Dataset:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        if not first:
            first.append(place_workers(step.resources, step.stage))
        placement = first[0].at_most(dataset.num_blocks())
        needs = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus or None}
        if not isinstance(step.stage, LoadedStage | ImageStage | FittedStage):
            pool = TaskPoolStrategy(size=placement.most)  # those that do not fit wait, and run on nodes that join
            return map_blocks(dataset, reported, fn_kwargs={"call": task.compute}, compute=pool, **needs)
        limits: dict[str, Any] = {}
        if isinstance(step.stage, ImageStage | Download):
            limits = {"max_concurrent_calls_per_actor": _AT_ONCE, "enable_true_multi_threading": True}
        size = {"min_size": placement.workers, "max_size": placement.most, "initial_size": placement.workers}
        if alone:
            limits, size = {"max_tasks_in_flight_per_actor": 1}, {"size": placement.workers}
        actors = ActorPoolStrategy(**size, **limits)
        make = _worker(step, task, placement)
        return map_blocks(dataset, StageActor, fn_constructor_args=(make,), compute=actors, **needs)

    return job
