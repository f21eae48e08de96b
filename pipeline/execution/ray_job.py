"""Ray: started or joined, and given one Data job at a time."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl
import pyarrow as pa

from core.cluster import connect
from core.errors import UserError
from pipeline.execution.receipts import BLOCK, raise_failure
from pipeline.pools.images import Failure

RETRIES = 1
"""How often Ray gives a block to another worker when its worker died."""

# Ray prints them on stdout, between our JSON. They are in its log files too, and what comes of them is in the tables.
_KNOWN_DEATHS = r"^A worker died or was killed while executing a task|^Task .* There are .*retries remaining"
_MEMORY_RETRIES = "3"  # of a task that was killed for the memory it took; Ray's default is to try for ever

_MOST_LOST = 100  # blocks of a job at first; where more lose their workers, the stage is broken or the cluster is
_MOST_GIVEN_UP = 1000  # blocks that cannot be divided, of one job; the next run goes on behind them


class Job(Protocol):
    """What is done to blocks."""

    def __call__(self, dataset: Any, alone: bool = False) -> Any:
        """A Ray dataset of blocks to one of receipts; with `alone`, no worker has two blocks at once."""


class Rescue(Protocol):
    """What becomes of blocks whose worker died at every try."""

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Store what the dead left written down; what is left of the blocks, and receipts."""

    def divide(self, block: pa.Table) -> list[pa.Table]:
        """Smaller blocks of the same rows; only the block itself where it cannot be divided."""

    def give_up(self, block: pa.Table, failure: Failure) -> pa.Table:
        """Store the rows of a block as errors; the receipt."""


@dataclass(frozen=True)
class JobDone:
    """What a job stored, and how fast.

    Attributes:
        rows: Rows stored.
        errors: Those of them that failed.
        seconds: Wall time, with the start of workers and models, without that of Ray.
        working: Wall time from the first row that a worker took to the last that it stored: start-up left out.
        idle: Of the workers' time, the share in which their model had nothing to do; None where nobody tells.
    """

    rows: int
    errors: int
    seconds: float
    working: float
    idle: float | None


def run_job(blocks: Iterable[pa.Table], job: Job, rescue: Rescue | None = None) -> JobDone:
    """Send blocks through a Ray Data job that stores them as parts.

    Without `rescue` a block whose worker died at every try ends the job. With it such blocks are run again in smaller
    pieces, each alone in its worker, until what kills a worker cannot be divided any more and is given up.

    Raises:
        UserError: Ray or a stage could not start, or the cluster died; what is stored stays.
    """
    start_ray()
    from ray.exceptions import RayError, RayTaskError

    begin = time.perf_counter()
    receipts: list[pa.Table] = []
    try:
        deaths = _Deaths()
        done, lost = _run(blocks, job, False, deaths, tolerant=rescue is not None)
        receipts += done
        if rescue and lost:
            receipts += _rescue_all(rescue, lost, job)
        return _sum_up(pa.concat_tables(receipts, promote_options="default"), time.perf_counter() - begin)
    except (RayTaskError, UserError):
        _end_actors()
        raise
    except RayError as error:
        if _never_began(error):
            _end_actors()
            raise
        failed, cause = stopped(error), str(error)
    _end_actors()
    raise failed from RuntimeError(cause)


def _rescue_all(rescue: Rescue, lost: list[pa.Table], job: Job) -> list[pa.Table]:
    """Run lost blocks again in ever smaller pieces, each alone in its worker, until all are stored or given up.

    A round has no more blocks than may be lost in it.

    Returns:
        The receipts.

    Raises:
        UserError: So many are given up that it is hardly their fault.
    """
    waiting, receipts = _rescued(rescue, lost, None)
    given_up = 0
    while waiting:
        deaths = _Deaths()
        done, lost = _run(waiting[:_MOST_LOST], job, True, deaths, tolerant=True)
        pieces, settled = _rescued(rescue, lost, deaths.failure()) if lost else ([], [])
        receipts += [*done, *settled]
        waiting = [*pieces, *waiting[_MOST_LOST:]]
        given_up += len(settled)
        if given_up > _MOST_GIVEN_UP:
            raise UserError(
                f"{given_up:,} rows or groups killed their workers; what is stored stays, they are errors: "
                "look at the memory of the machines and at the model, then run again to go on"
            )
    return receipts


def _rescued(rescue: Rescue, lost: list[pa.Table], failure: Failure | None) -> tuple[list[pa.Table], list[pa.Table]]:
    """The blocks to run next in place of those that are lost, and the receipts of what is settled.

    A block that cannot be divided is given up for `failure`; with None it was not alone yet, and gets another chance.
    """
    lost, receipts = rescue.salvage(lost)
    waiting: list[pa.Table] = []
    for block in lost:
        pieces = rescue.divide(block)
        if len(pieces) > 1 or failure is None:
            waiting += pieces
        else:
            receipts.append(rescue.give_up(block, failure))
    return waiting, receipts


class _Deaths(logging.Handler):
    """Why blocks were lost. Ray Data passes over them as it is told to, and says why in its log alone."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._errors.append(record.exc_info[1])

    def failure(self) -> Failure:
        """The error of a row that was alone in its worker. Where memory or a machine ran out, another try can help."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError

        tries = f"at each of {RETRIES + 1} tries alone"
        for error in self._errors:
            if isinstance(error, OutOfMemoryError) or "OOM" in str(error) or "memory pressure" in str(error):
                return Failure(f"killed its worker: out of memory {tries}", retry=True)
            if isinstance(error, NodeDiedError) or "node died" in str(error).lower():
                return Failure(f"killed its worker: the machine was lost {tries}", retry=True)
        return Failure(f"killed its worker: its process ended {tries}, as in a crash of a decoder")

    def raise_others(self) -> None:
        """Raise what is no death of a worker: it is not the block's."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

        for error in self._errors:
            died = isinstance(error, RayActorError | WorkerCrashedError | OutOfMemoryError | NodeDiedError)
            if not died or _never_began(error):
                raise error


def _never_began(error: BaseException) -> bool:
    """Whether an actor's constructor raised: a bug, whose traceback is in the text, and no death of a worker."""
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError) and error.actor_init_failed


def _end_actors() -> None:
    """End the actors of a job that failed: the next job in this process would wait for the CPUs that they hold.

    By themselves they live as long as anything knows of them, such as the frames of an error's traceback; and errors
    are kept, as a notebook's last one, or by a log handler that remembers records.
    """
    import ray
    from ray.actor import ActorHandle

    for handle in [kept for kept in gc.get_objects() if issubclass(type(kept), ActorHandle)]:
        if "MapWorker" in repr(handle):  # Ray Data's; one job runs at a time, so they are all of this one
            ray.kill(handle)


def _run(
    blocks: Iterable[pa.Table], job: Job, alone: bool, deaths: _Deaths, tolerant: bool
) -> tuple[list[pa.Table], list[pa.Table]]:
    """Run blocks through a job; the receipts, and the blocks that are lost."""
    import ray
    from ray.data import DataContext

    refs = [ray.put(block.append_column(BLOCK, pa.repeat(n, block.num_rows))) for n, block in enumerate(blocks)]
    DataContext.get_current().max_errored_blocks = _MOST_LOST if tolerant else 0
    receipts: list[pa.Table] = []
    log = logging.getLogger("ray.data")
    log.addHandler(deaths)
    try:
        with redirect_stdout(sys.stderr):  # what else Ray has to say of its machines; stdout is for results
            dataset = job(ray.data.from_arrow_refs(refs), alone=alone)
            for receipt in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
                raise_failure(receipt)
                receipts.append(receipt)
    finally:
        log.removeHandler(deaths)
    deaths.raise_others()
    done = {number for receipt in receipts for number in receipt[BLOCK].to_pylist()}
    return receipts, [ray.get(ref).drop_columns([BLOCK]) for number, ref in enumerate(refs) if number not in done]


def map_blocks(dataset: Any, call: Any, **how: Any) -> Any:
    """`dataset.map_batches` with whole blocks, and a bounded number of retries."""
    from ray.data import ActorPoolStrategy
    from ray.util.annotations import RayDeprecationWarning

    retries = "max_task_retries" if isinstance(how.get("compute"), ActorPoolStrategy) else "max_retries"
    with warnings.catch_warnings():  # that Ray 2.64 will have another way to say it; 2.60 has none
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return dataset.map_batches(call, batch_size=None, batch_format="pyarrow", **{retries: RETRIES}, **how)


def stopped(error: Exception) -> UserError:
    """What there is to tell a user when a worker, a machine or the cluster died."""
    what = " ".join(str(error).split())[:200]
    return UserError(f"Ray stopped under the job ({what}); what is stored stays, run again to go on")


def _sum_up(receipts: pa.Table, seconds: float) -> JobDone:
    frame = pl.DataFrame(receipts)
    per_worker = frame.group_by("worker").agg(
        (pl.col("end").max() - pl.col("begin").min()).alias("wall"),
        pl.col("busy").sum(),
        pl.col("busy").count().alias("n"),
    )
    wall, busy, n = per_worker.select(pl.col("wall", "busy", "n").sum()).row(0)
    working: float = frame.select(pl.col("end").max() - pl.col("begin").min()).item()
    idle = max(0.0, 1 - busy / wall) if n and wall else None
    return JobDone(int(frame["rows"].sum()), int(frame["errors"].sum()), seconds, working, idle)


def start_ray() -> None:
    """Join the cluster of the environment (`ray job submit` sets it), else start one on this machine.

    Raises:
        UserError: As `connect`.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _KNOWN_DEATHS)  # Ray reads them when it is imported
    os.environ.setdefault("RAY_task_oom_retries", _MEMORY_RETRIES)
    connect(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    # A job here is one operator that hands on receipts of a few bytes. Sharing resources out between operators would
    # only keep one worker idle: on 2 CPUs, half of them.
    context.op_resource_reservation_enabled = False
    log = logging.getLogger("ray.data")  # what it says stays in its log files; what concerns a user we raise or store
    for handler in [h for h in log.handlers if isinstance(h, logging.StreamHandler)]:
        if not isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
