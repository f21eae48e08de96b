"""Ray: started or joined, asked what it can hold, and given one Data job at a time."""

from __future__ import annotations

import gc
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.recipe import Resources
from pipeline.stages import StageRefusedError


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


def run_job(blocks: Iterable[pa.Table], job: Callable[[Any], Any]) -> JobDone:
    """Send blocks through a Ray Data job that stores them as parts.

    Raises:
        ValueError: A stage could not start, or the cluster died; what is stored stays.
    """
    start_ray()
    from ray.exceptions import RayError, RayTaskError

    begin = time.perf_counter()
    try:
        receipts = _receipts(blocks, job)
        return _sum_up(receipts, time.perf_counter() - begin)
    except RayTaskError as error:
        # Ray hands the exception itself on as text only.
        refused = re.search(rf"{StageRefusedError.__name__}: (.*)", str(error))
        if not refused:
            raise
        failed, cause = ValueError(refused[1]), str(error)
    except RayError as error:
        failed, cause = stopped(error), str(error)
    _end_actors()
    raise failed from RuntimeError(cause)


def _end_actors() -> None:
    """End the actors of a job that failed: the next job in this process would wait for the CPUs that they hold.

    By themselves they live as long as anything knows of them, such as the frames of an error's traceback; and errors
    are kept, as a notebook's last one, or by a log handler that remembers records.
    """
    import ray
    from ray.actor import ActorHandle

    for handle in [kept for kept in gc.get_objects() if isinstance(kept, ActorHandle)]:
        if "MapWorker" in repr(handle):  # Ray Data's; one job runs at a time, so they are all of this one
            ray.kill(handle)


def _receipts(blocks: Iterable[pa.Table], job: Callable[[Any], Any]) -> pa.Table:
    import ray

    dataset = ray.data.from_arrow_refs([ray.put(block) for block in blocks])
    return pa.concat_tables([*job(dataset).iter_batches(batch_format="pyarrow", batch_size=None)])


def stopped(error: Exception) -> ValueError:
    """What there is to tell a user when a worker, a machine or the cluster died."""
    what = " ".join(str(error).split())[:200]
    return ValueError(f"Ray stopped under the job ({what}); what is stored stays, run again to go on")


def _sum_up(receipts: pa.Table, seconds: float) -> JobDone:
    told = pl.DataFrame(receipts)
    per_worker = told.group_by("worker").agg(
        (pl.col("end").max() - pl.col("begin").min()).alias("wall"),
        pl.col("busy").sum(),
        pl.col("busy").count().alias("n"),
    )
    wall, busy, n = per_worker.select(pl.col("wall", "busy", "n").sum()).row(0)
    working: float = told.select(pl.col("end").max() - pl.col("begin").min()).item()
    idle = max(0.0, 1 - busy / wall) if n and wall else None
    return JobDone(int(told["rows"].sum()), int(told["errors"].sum()), seconds, working, idle)


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


@dataclass(frozen=True)
class Placement:
    """How many workers a stage gets, and what each of them holds."""

    workers: int
    num_cpus: float
    num_gpus: float
    threads: int


def place_workers(asked: Resources, stage: Any, blocks: int) -> Placement:
    """As the recipe asks; by default as many workers as fit, and no more than there are blocks.

    Raises:
        ValueError: The cluster does not have what one actor needs.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has = ray.cluster_resources()
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    wants = getattr(stage, "gpu", False)  # or how many
    num_gpus = float(wants) if wants and with_gpu and asked.num_gpus is None else asked.num_gpus or 0.0
    # A model that wants a GPU and has none: few copies, each with several cores of one machine.
    cores = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    shared = min(8, cores, int(has.get("CPU", 1)) // (asked.actors or 1)) if wants and not num_gpus else 1
    num_cpus = max(1, shared) if asked.num_cpus is None else asked.num_cpus
    beside = min((int(node.get("CPU", 0) / node["GPU"]) for node in with_gpu), default=1)
    by_default = wants and num_gpus and asked.num_gpus is None and asked.num_cpus is None
    threads = asked.threads or max(1, beside if by_default else math.ceil(num_cpus))
    actors = asked.actors or getattr(stage, "actors", None)
    needs = {kind: n for kind, n in (("CPU", num_cpus), ("GPU", num_gpus)) if n}
    fits = sum(min((int(node.get(kind, 0) / n) for kind, n in needs.items()), default=1) for node in nodes)
    # A cluster that we joined may grow to what is asked for; one of our own does not.
    if not (asked.actors and "RAY_ADDRESS" in os.environ):
        if not fits:
            told = " and ".join(f"{n:g} {kind} (there are {has.get(kind, 0):g})" for kind, n in needs.items())
            raise ValueError(
                f"{stage.name}: an actor needs {told}; change its resources in the recipe, "
                "or give `actors` on a cluster that will grow"
            )
        return Placement(min(actors or fits, fits, blocks), num_cpus, num_gpus, threads)
    return Placement(min(asked.actors, blocks), num_cpus, num_gpus, threads)
