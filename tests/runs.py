"""A run in the test's own process, on the session's Ray; or without Ray's workers, where a test is about the results.

A worker of Ray takes 3 CPU seconds to start, and each job of a stage with a model starts its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from manifests import Run, open_run
from pipeline.execution.block_feed import BLOCK
from pipeline.execution.index import open_pool
from pipeline.execution.index_job import build_index
from pipeline.execution.job_result import JobResult
from pipeline.execution.receipts import raise_failure
from pipeline.execution.runner import prepare, run_stages
from pipeline.recipe import parse_recipe


def run(recipe: dict[str, Any], url: Path | str, refit: bool = False) -> tuple[Run, dict[str, JobResult]]:
    """Do everything the recipe says; the run, and what each job did."""
    checked = parse_recipe(recipe, "test")
    listing = open_pool(checked.pool, str(url))
    opened = prepare(checked, str(url), refit)
    jobs = [build_index(opened, checked.pool, listing, lambda text: None), *run_stages(opened, checked, refit=refit)]
    return open_run(str(url)), {job.stage: job for job in jobs}


def run_here(recipe: dict[str, Any], url: Path | str) -> tuple[Run, dict[str, JobResult]]:
    """As `run`, with `jobs_here`."""
    with jobs_here():
        return run(recipe, url)


def run_stages_on_ray(recipe: dict[str, Any], url: Path | str) -> tuple[Run, dict[str, JobResult]]:
    """As `run`, with an index that was made here: for tests of what becomes of a stage's workers."""
    run_here({**recipe, "stages": []}, url)
    return run(recipe, url)


@contextmanager
def jobs_here() -> Iterator[None]:
    """Let jobs call their tasks and actors in this process, one block after another, instead of in Ray's workers."""
    with patch("pipeline.execution.ray_job._run_round", _run_round_here), patch.dict(os.environ):
        yield


@dataclass(frozen=True)
class _Blocks:
    """What a job needs of a Ray dataset."""

    blocks: list[pa.Table]

    def num_blocks(self) -> int:
        return len(self.blocks)

    def map_batches(
        self, call: Callable[..., Any], fn_kwargs: Any = None, fn_constructor_args: Any = (), **_: Any
    ) -> _Blocks:
        compute = call(*fn_constructor_args) if isinstance(call, type) else partial(call, **(fn_kwargs or {}))
        return _Blocks([compute(block) for block in self.blocks])


def _run_round_here(
    blocks: Iterable[pa.Table], job: Callable[..., Any], *_: object, alone: bool
) -> tuple[list[pa.Table], list[pa.Table], list[int]]:
    numbered = [block.append_column(BLOCK, pa.repeat(number, block.num_rows)) for number, block in enumerate(blocks)]
    receipts: list[pa.Table] = job(_Blocks(numbered), alone=alone).blocks
    for receipt in receipts:
        raise_failure(receipt)
    return receipts, [], []
