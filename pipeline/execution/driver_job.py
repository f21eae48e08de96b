"""Compute a job of few rows in the driver: it takes less time than the start of one of Ray's workers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import cast

import pyarrow as pa

from core.stages import Facts, FittedStage, LoadedStage
from pipeline.execution.job_result import JobStats
from pipeline.execution.receipts import Observe, called
from pipeline.execution.stage_task import StageTask


def run_in_driver(blocks: Iterable[pa.Table], task: StageTask, observe: Observe) -> JobStats:
    """Compute and store blocks, one part each, as workers do; call `observe` with each receipt.

    Raises:
        UserError: The stage cannot be loaded, or the stage or the system refused to continue; stored parts remain.
    """
    begin = time.perf_counter()
    facts = None
    if isinstance(task.stage, LoadedStage | FittedStage):
        task, loaded = task.loaded()
        facts = cast(Facts, loaded)

    def computed() -> Iterator[pa.Table]:
        for block in blocks:
            receipt = called(block, partial(task.compute, facts=facts))
            observe(receipt)
            yield receipt

    return JobStats.of(pa.concat_tables(computed()), time.perf_counter() - begin)
