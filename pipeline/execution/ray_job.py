"""Start or join Ray, and run one Ray Data job at a time."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from core.cluster import connect
from core.errors import UserError, is_bug
from pipeline.execution.job_result import JobStats, LocalResult
from pipeline.execution.receipts import BLOCK, Observe, ignore, raise_failure
from pipeline.pools.images import Failure

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data import Dataset

RETRIES = 1
"""How often Ray gives a block to another worker when its worker died."""

# Ray prints deaths of workers and raylets, with the last lines of their logs, on the driver's stdout, between our JSON.
# Its log files have them too, the tables show the outcome, and `lost_nodes` says which node was lost.
_EVERYTHING = "."
_MEMORY_RETRIES = "3"  # of a task that was killed because it used too much memory; Ray's default is to retry forever

_MOST_LOST = 100  # blocks per round; if more blocks lose their workers, the stage or the cluster is broken
_MOST_FAILED = 1000  # indivisible blocks per job that may be stored as errors; the next run continues after them


class Job(Protocol):
    """The work that is done on blocks."""

    def __call__(self, dataset: Dataset, alone: bool = False) -> Dataset:
        """Map a Ray dataset of blocks to one of receipts; with `alone`, no worker has two blocks at once."""


class Rescue(Protocol):
    """The handling of lost blocks: those whose worker died at every try."""

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Store rows that dead workers left in journals; return the rest of the blocks, and the receipts."""

    def divide(self, block: pa.Table) -> list[pa.Table]:
        """Return smaller blocks of the same rows; only the block itself if it cannot be divided."""

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        """Store the rows of a block as errors; return the receipt."""


def run_job(
    blocks: Iterable[pa.Table],
    job: Job,
    rescue: Rescue | None = None,
    before: LocalResult | None = None,
    observe: Observe = ignore,
) -> JobStats:
    """Send blocks through a Ray Data job that stores them as parts.

    Without `rescue`, a block whose worker died at every try ends the job. With it, such blocks are run again in smaller
    pieces, each alone in its worker. A piece that kills its worker and cannot be divided any more is stored as errors.

    Args:
        blocks: The blocks.
        job: The work on them.
        rescue: The handling of lost blocks.
        before: What local workers did of this job, which counts too; their lost blocks need the rescue.
        observe: Called with each receipt of this function's own.

    Raises:
        UserError: Ray or a stage could not start, or the cluster died; stored parts remain.
    """
    before = before or LocalResult()
    begin = time.perf_counter() - before.seconds
    receipts, lost = list(before.receipts), list(before.lost)
    if not blocks and not lost:
        return _stats(receipts, begin)
    start_ray()
    begin = time.perf_counter() - before.seconds
    from ray.exceptions import RayError, RayTaskError

    try:
        if blocks:
            stored, new = _run_round(blocks, job, _WorkerDeaths(), observe, alone=False, may_lose=rescue is not None)
            receipts, lost = [*receipts, *stored], [*lost, *new]
        if rescue and lost:
            receipts += _rescue_all(rescue, lost, job, observe)
        return _stats(receipts, begin)
    except (RayTaskError, UserError):
        _end_actors()
        raise
    except RayError as error:
        if _failed_to_start(error):
            _end_actors()
            raise
        user_error, cause = stopped(error), str(error)
    _end_actors()
    raise user_error from RuntimeError(cause)


def _stats(receipts: Sequence[pa.Table], begin: float) -> JobStats:
    return JobStats.of(pa.concat_tables(receipts, promote_options="default"), time.perf_counter() - begin)


def _rescue_all(rescue: Rescue, lost: list[pa.Table], job: Job, observe: Observe) -> list[pa.Table]:
    """Run lost blocks again in ever smaller pieces, each alone in its worker, until all rows are stored.

    A round has at most as many blocks as may be lost in it.

    Returns:
        The receipts.

    Raises:
        UserError: So many blocks are stored as errors that they are unlikely to be at fault.
    """
    rest, receipts = rescue.salvage(lost)
    _observe_all(receipts, observe)
    waiting = [piece for block in rest for piece in rescue.divide(block)]
    failed = 0
    while waiting:
        deaths = _WorkerDeaths()
        stored, lost = _run_round(waiting[:_MOST_LOST], job, deaths, observe, alone=True, may_lose=True)
        receipts += stored
        waiting = waiting[_MOST_LOST:]
        if not lost:
            continue
        rest, salvaged = rescue.salvage(lost)
        pieces, failures = _divide(rescue, rest, deaths.failure())
        receipts += _observe_all([*salvaged, *failures], observe)
        waiting = [*pieces, *waiting]
        failed += len(failures)
        if failed > _MOST_FAILED:
            raise UserError(
                f"{failed:,} rows or groups killed their workers; what is stored stays, they are errors: "
                "look at the memory of the machines and at the model, then run again to go on"
            )
    return receipts


def _observe_all(receipts: list[pa.Table], observe: Observe) -> list[pa.Table]:
    for receipt in receipts:
        observe(receipt)
    return receipts


def _divide(rescue: Rescue, lost: list[pa.Table], failure: Failure) -> tuple[list[pa.Table], list[pa.Table]]:
    """Divide blocks that killed a worker alone; store those that cannot be divided as errors, with `failure`.

    Returns:
        The pieces, and the receipts of the errors.
    """
    pieces, failures = [], []
    for block in lost:
        divided = rescue.divide(block)
        if len(divided) > 1:
            pieces += divided
        else:
            failures.append(rescue.store_failure(block, failure))
    return pieces, failures


class _WorkerDeaths(logging.Handler):
    """A log handler that collects why blocks were lost: Ray Data skips them and gives the reason only in its log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._errors.append(record.exc_info[1])

    def failure(self) -> Failure:
        """Return the error of a row that was alone in its worker; it can be retried if memory or a machine was lost."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError

        tries = f"at each of {RETRIES + 1} tries alone"
        for error in self._errors:
            if isinstance(error, OutOfMemoryError) or "OOM" in str(error) or "memory pressure" in str(error):
                return Failure(f"killed its worker: out of memory {tries}", retry=True)
            if isinstance(error, NodeDiedError) or "node died" in str(error).lower():
                return Failure(f"killed its worker: the machine was lost {tries}", retry=True)
        return Failure(f"killed its worker: its process ended {tries}, as in a crash of a decoder")

    def raise_others(self) -> None:
        """Raise an error that is not the death of a worker: the block did not cause it."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

        for error in self._errors:
            died = isinstance(error, RayActorError | WorkerCrashedError | OutOfMemoryError | NodeDiedError)
            if not died or _failed_to_start(error):
                raise error


def _failed_to_start(error: BaseException) -> bool:
    """Return whether an actor's constructor raised: a bug (its traceback is in the text), not a worker's death."""
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError) and error.actor_init_failed


def _end_actors() -> None:
    """End the actors of a failed job: the next job in this process would wait for the CPUs that they hold.

    An actor lives as long as anything refers to it, such as the frames of an error's traceback. Errors may be kept: a
    notebook keeps the last one, and so does a log handler that stores records.
    """
    import ray
    from ray.actor import ActorHandle

    for handle in [kept for kept in gc.get_objects() if issubclass(type(kept), ActorHandle)]:
        if "MapWorker" in repr(handle):  # Ray Data's actors; one job runs at a time, so all of them belong to it
            ray.kill(handle)


def _run_round(
    blocks: Iterable[pa.Table], job: Job, deaths: _WorkerDeaths, observe: Observe, *, alone: bool, may_lose: bool
) -> tuple[list[pa.Table], list[pa.Table]]:
    """Run blocks through a job; return the receipts, and the lost blocks."""
    import ray
    from ray.data import DataContext

    refs = [ray.put(block.append_column(BLOCK, pa.repeat(n, block.num_rows))) for n, block in enumerate(blocks)]
    DataContext.get_current().max_errored_blocks = _MOST_LOST if may_lose else 0
    receipts: list[pa.Table] = []
    log = logging.getLogger("ray.data")
    log.addHandler(deaths)
    try:
        with redirect_stdout(sys.stderr):  # Ray prints other messages too; stdout is for results
            dataset = job(ray.data.from_arrow_refs(refs), alone=alone)
            for receipt in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
                raise_failure(receipt)
                receipts.append(receipt)
                observe(receipt)
    finally:
        log.removeHandler(deaths)
    deaths.raise_others()
    stored = {number for receipt in receipts for number in receipt[BLOCK].to_pylist()}
    return receipts, [ray.get(ref).drop_columns([BLOCK]) for number, ref in enumerate(refs) if number not in stored]


def map_blocks(dataset: Dataset, call: Callable[..., pa.Table], **options: Any) -> Dataset:
    """Call `dataset.map_batches` with whole blocks and a bounded number of retries."""
    from ray.data import ActorPoolStrategy
    from ray.util.annotations import RayDeprecationWarning

    retries = "max_task_retries" if isinstance(options.get("compute"), ActorPoolStrategy) else "max_retries"
    with warnings.catch_warnings():  # Ray 2.64 will have another option for retries; 2.60 has none
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return dataset.map_batches(call, batch_size=None, batch_format="pyarrow", **{retries: RETRIES}, **options)


def result_of(task: ObjectRef) -> Any:
    """Return the result of one task of Ray.

    Raises:
        UserError: The task refused to continue, or Ray stopped.
        RayTaskError: The task failed with a bug.
    """
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if error.cause is not None and not is_bug(error.cause):
            raise UserError(" ".join(str(error.cause).split())) from error
        raise
    except ray.exceptions.RayError as error:
        raise stopped(error) from error


def stopped(error: Exception) -> UserError:
    """Return the error for the user when a worker, a machine or the cluster died."""
    what = " ".join(str(error).split())[:200]
    return UserError(f"Ray stopped under the job ({what}); what is stored stays, run again to go on")


def start_ray() -> None:
    """Join the cluster that the environment names (`ray job submit` sets it), else start one on this machine.

    Raises:
        UserError: See `connect`.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _EVERYTHING)  # Ray reads both variables on import
    os.environ.setdefault("RAY_task_oom_retries", _MEMORY_RETRIES)
    connect(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False  # `Progress` shows one
    # A job here is one operator that returns receipts of a few bytes. Reserving resources between operators would only
    # keep one worker idle: on 2 CPUs, half of them.
    context.op_resource_reservation_enabled = False
    log = logging.getLogger("ray.data")  # its messages stay in log files; errors for the user are raised or stored
    for handler in [h for h in log.handlers if isinstance(h, logging.StreamHandler)]:
        if not isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
