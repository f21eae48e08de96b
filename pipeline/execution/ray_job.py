"""Run one Ray Data job at a time."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from core.errors import UserError
from pipeline.execution.block_feed import BLOCK, feeding
from pipeline.execution.blocks import Remaining
from pipeline.execution.job_result import JobStats, LocalResult
from pipeline.execution.losses import NodeWatch, WorkerDeaths, failed_to_start
from pipeline.execution.ray_session import end_actors, start_ray, stopped
from pipeline.execution.receipts import Observe, ignore, raise_failure
from pipeline.pools.images import Failure

if TYPE_CHECKING:
    from ray.data import Dataset

_MOST_LOST = 200  # blocks per round; a worker has up to four. If more are lost, the stage or the cluster is broken
_MOST_FAILED = 1000  # indivisible blocks per job that may be stored as errors; the next run continues after them
_MOST_FRUITLESS = 3  # rounds in which nodes were lost and no block was stored; after them the blocks are suspected


class Job(Protocol):
    """The work that is done on blocks."""

    def __call__(self, dataset: Dataset, alone: bool = False) -> Dataset:
        """Map a Ray dataset of blocks to one of receipts; with `alone`, no worker has two blocks at once."""


class Rescue(Protocol):
    """The handling of lost blocks: those whose worker died."""

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        """Store rows that dead workers left in journals; return the rest of the blocks, and the receipts."""

    def divide(self, block: pa.Table) -> list[pa.Table]:
        """Return smaller blocks of the same rows; only the block itself if it cannot be divided."""

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        """Store the rows of a block as errors; return the receipt."""


class EndsJob:
    """The handling of lost blocks of work that skips what is stored: run them again; one that kills ends the job."""

    def salvage(self, lost: list[pa.Table]) -> tuple[list[pa.Table], list[pa.Table]]:
        return lost, []

    def divide(self, block: pa.Table) -> list[pa.Table]:
        return [block]

    def store_failure(self, block: pa.Table, failure: Failure) -> pa.Table:
        raise UserError(f"a block of {block.num_rows:,} rows {failure.error}; what is stored stays, run again to go on")


def run_job(
    blocks: Sequence[pa.Table],
    job: Job,
    rescue: Rescue | None = None,
    before: LocalResult | None = None,
    observe: Observe = ignore,
) -> JobStats:
    """Send blocks through a Ray Data job that stores them as parts. Each is taken from `blocks` when a worker is free.

    Blocks that were lost with a node are run again as they are. Blocks whose workers died otherwise are run again in
    ever smaller pieces, each alone in its worker. A piece that kills its worker and cannot be divided any more is
    stored as errors.

    Args:
        blocks: The blocks.
        job: The work on them.
        rescue: The handling of lost blocks; by default `EndsJob`.
        before: What local workers did of this job, which counts too.
        observe: Called with each receipt of this function's own.

    Raises:
        UserError: Ray or a stage could not start, or the cluster died; stored parts remain.
    """
    before, rescue = before or LocalResult(), rescue or EndsJob()
    begin = time.perf_counter() - before.seconds
    receipts = list(before.receipts)
    if not blocks and not before.lost:
        return _stats(receipts, begin)
    start_ray()
    begin = time.perf_counter() - before.seconds
    from ray.exceptions import RayError, RayTaskError

    try:
        rest, salvaged = rescue.salvage(before.lost) if before.lost else ([], [])
        receipts += _observe_all(salvaged, observe)
        suspects = [piece for block in rest for piece in rescue.divide(block)]
        if blocks:
            together, lost, _ = _run(blocks, job, rescue, observe, alone=False)
            receipts += together
            suspects += lost
        return _stats([*receipts, *_run_alone(suspects, job, rescue, observe)], begin)
    except (RayTaskError, UserError):
        end_actors()
        raise
    except RayError as error:
        if failed_to_start(error):
            end_actors()
            raise
        user_error, cause = stopped(error), str(error)
    end_actors()
    raise user_error from RuntimeError(cause)


def _stats(receipts: Sequence[pa.Table], begin: float) -> JobStats:
    return JobStats.of(pa.concat_tables(receipts, promote_options="default"), time.perf_counter() - begin)


def _run(
    blocks: Sequence[pa.Table], job: Job, rescue: Rescue, observe: Observe, *, alone: bool
) -> tuple[list[pa.Table], list[pa.Table], WorkerDeaths]:
    """Run blocks, and again those that were lost in a round in which a node was lost: it may have had them.

    Returns:
        The receipts, the blocks that lost their workers otherwise, and why.
    """
    receipts: list[pa.Table] = []
    fruitless = 0
    while True:
        nodes, deaths = NodeWatch(), WorkerDeaths()
        stored, lost, untouched = _run_round(blocks, job, deaths, nodes, observe, alone=alone)
        rest, salvaged = rescue.salvage(lost) if lost else ([], [])
        receipts += [*stored, *_observe_all(salvaged, observe)]
        fruitless = 0 if stored or salvaged else fruitless + 1
        blocks = Remaining(rest, blocks, untouched)
        if not blocks or not nodes.lost_one() or fruitless == _MOST_FRUITLESS:
            return receipts, list(blocks), deaths


def _run_alone(suspects: list[pa.Table], job: Job, rescue: Rescue, observe: Observe) -> list[pa.Table]:
    """Run blocks in ever smaller pieces, each alone in its worker, until all rows are stored; return the receipts.

    A round has at most as many blocks as may be lost in it.

    Raises:
        UserError: So many blocks are stored as errors that they are unlikely to be at fault.
    """
    receipts: list[pa.Table] = []
    failed = 0
    while suspects:
        stored, lost, _ = _run(suspects[:_MOST_LOST], job, rescue, observe, alone=True)
        receipts += stored
        divided = [rescue.divide(block) for block in lost]
        suspects = [*(piece for pieces in divided if len(pieces) > 1 for piece in pieces), *suspects[_MOST_LOST:]]
        stored, failures = _try_again([pieces[0] for pieces in divided if len(pieces) == 1], job, rescue, observe)
        receipts += [*stored, *failures]
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


def _try_again(
    blocks: list[pa.Table], job: Job, rescue: Rescue, observe: Observe
) -> tuple[list[pa.Table], list[pa.Table]]:
    """Run blocks again that cannot be divided and killed their worker once; store those that kill again as errors.

    Returns:
        The receipts of the blocks, and of the errors.
    """
    if not blocks:
        return [], []
    receipts, lost, deaths = _run(blocks, job, rescue, observe, alone=True)
    return receipts, _observe_all([rescue.store_failure(block, deaths.failure()) for block in lost], observe)


def _run_round(
    blocks: Sequence[pa.Table],
    job: Job,
    deaths: WorkerDeaths,
    nodes: NodeWatch,
    observe: Observe,
    *,
    alone: bool,
) -> tuple[list[pa.Table], list[pa.Table], list[int]]:
    """Run blocks through a job; return the receipts, the lost blocks, and the numbers of those that no worker got.

    If Ray Data gives up, the latter may be nearly all blocks.
    """
    import ray
    from ray.data import DataContext
    from ray.exceptions import RayError, RayTaskError

    DataContext.get_current().max_errored_blocks = _MOST_LOST
    receipts: list[pa.Table] = []
    gave_up = False
    log = logging.getLogger("ray.data")
    log.addHandler(deaths)
    try:
        # Ray prints on stdout, which is for results.
        with redirect_stdout(sys.stderr), feeding(blocks) as (tickets, taken):
            dataset = job(ray.data.from_arrow(tickets), alone=alone)
            for receipt in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
                raise_failure(receipt)
                receipts.append(receipt)
                observe(receipt)
    except RayError as error:  # with many workers of a lost node, Ray Data gives up
        if isinstance(error, RayTaskError) or failed_to_start(error) or not nodes.lost_one(wait=True):
            raise
        gave_up = True
    finally:
        log.removeHandler(deaths)
    deaths.raise_others(nodes)
    stored = {number for receipt in receipts for number in receipt[BLOCK].to_pylist()}
    missing = [number for number in range(len(blocks)) if number not in stored]
    untouched = [number for number in missing if gave_up and number not in taken]
    lost = [blocks[number] for number in missing if not gave_up or number in taken]
    if missing:
        end_actors()  # those of a lost node would restart in the place of the next round's
    return receipts, lost, untouched


def map_blocks(dataset: Dataset, call: Callable[..., pa.Table], **options: Any) -> Dataset:
    """Call `dataset.map_batches` with whole blocks. Ray tries none again: it would wait for the same actor to restart.

    If that actor's node is lost, and other actors hold all that is left, it never restarts. `run_job` tries again.
    """
    from ray.data import ActorPoolStrategy
    from ray.util.annotations import RayDeprecationWarning

    retries = "max_task_retries" if isinstance(options.get("compute"), ActorPoolStrategy) else "max_retries"
    with warnings.catch_warnings():  # Ray 2.64 will have another option for retries; 2.60 has none
        warnings.simplefilter("ignore", RayDeprecationWarning)
        # With GPUs, `map_batches` demands a batch size, for which it would bundle blocks.
        map_batches = dataset.map_batches_internal if options.get("num_gpus") else dataset.map_batches
        return map_batches(call, batch_size=None, batch_format="pyarrow", **{retries: 0}, **options)
