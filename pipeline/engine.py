"""Ray: started or joined, asked what it can hold, and given one Data job at a time."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.recipe import Resources
from pipeline.workers import StageLoadError


def run_job(blocks: Iterable[pa.Table], job: Callable[[Any], Any]) -> tuple[int, int, float]:
    """Send blocks through a Ray Data job that stores them as parts; rows and errors stored, and seconds.

    Raises:
        ValueError: A stage could not start, or the cluster died; what is stored stays.
    """
    start_ray()
    import ray
    from ray.exceptions import RayError, RayTaskError

    begin = time.perf_counter()
    dataset = ray.data.from_arrow_refs([ray.put(block) for block in blocks])
    rows = errors = 0
    try:
        for receipt in job(dataset).iter_batches(batch_format="pyarrow", batch_size=None):
            rows += pc.sum(receipt["rows"]).as_py()
            errors += pc.sum(receipt["errors"]).as_py()
    except RayTaskError as error:
        # Ray hands the exception itself on as text only.
        if refused := re.search(rf"{StageLoadError.__name__}: (.*)", str(error)):
            raise ValueError(refused[1]) from error
        raise
    except RayError as error:
        what = " ".join(str(error).split())[:200]
        raise ValueError(f"Ray stopped under the job ({what}); what is stored stays, run again to go on") from error
    return rows, errors, time.perf_counter() - begin


def start_ray() -> None:
    """Join the cluster of the environment (`ray job submit` sets it), else start one on this machine."""
    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    # A job here is one operator that hands on receipts of a few bytes. Sharing resources out between operators would
    # only keep one worker idle: on 2 CPUs, half of them.
    context.op_resource_reservation_enabled = False
    for handler in logging.getLogger("ray.data").handlers:  # to the terminal errors only; its log file keeps all
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


def workers_for(asked: Resources, name: str, blocks: int) -> int:
    """How many workers the stage called `name` gets: as its recipe asks, at most what fits and there is work for.

    Raises:
        ValueError: The cluster does not have what one actor needs.
    """
    import ray

    if asked.actors and "RAY_ADDRESS" in os.environ:  # a cluster that we joined may grow; one of our own does not
        return min(asked.actors, blocks)
    has = ray.cluster_resources()
    needs = {kind: n for kind, n in (("CPU", asked.num_cpus), ("GPU", asked.num_gpus)) if n}
    fits = min((int(has.get(kind, 0) / n) for kind, n in needs.items()), default=1)
    if not fits:
        told = " and ".join(f"{n:g} {kind} (there are {has.get(kind, 0):g})" for kind, n in needs.items())
        raise ValueError(
            f"{name}: an actor needs {told}; change its resources in the recipe, "
            "or give `actors` on a cluster that will grow"
        )
    return min(asked.actors or fits, fits, blocks)
