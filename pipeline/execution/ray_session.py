"""Start or join Ray, end its actors, and tell users of its errors."""

from __future__ import annotations

import gc
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from core.cluster import connect
from core.errors import UserError, is_bug

if TYPE_CHECKING:
    from ray import ObjectRef

# Ray prints deaths of workers and raylets, with the last lines of their logs, on the driver's stdout, between our JSON.
# Its log files have them too, the tables show the outcome, and `lost_nodes` says which node was lost.
_EVERYTHING = "."
_MEMORY_RETRIES = "3"  # of a task that was killed because it used too much memory; Ray's default is to retry forever

_WAITING_ACTORS = 8  # of a pool that may grow: all actors of a node with eight GPUs load their models at once


def start_ray() -> None:
    """Join the cluster that the environment names (`ray job submit` sets it), else start one on this machine.

    Raises:
        UserError: See `connect`.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _EVERYTHING)  # Ray reads both variables on import
    os.environ.setdefault("RAY_task_oom_retries", _MEMORY_RETRIES)
    connect(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    signal.siginterrupt(signal.SIGINT, True)  # Ray has the wait for a result begun again: Ctrl-C would never end it
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False  # `Progress` shows one
    # A job here is one operator that returns receipts of a few bytes. Reserving resources between operators would only
    # keep one worker idle: on 2 CPUs, half of them.
    context.op_resource_reservation_enabled = False
    # Without the reservation, Ray Data would ask for as many actors at once as there are blocks.
    context.autoscaling_config.actor_pool_max_upscaling_delta = _WAITING_ACTORS
    log = logging.getLogger("ray.data")  # its messages stay in log files; errors for the user are raised or stored
    for handler in [h for h in log.handlers if isinstance(h, logging.StreamHandler)]:
        if not isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)


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


def end_actors() -> None:
    """End the actors of a failed job: the next job in this process would wait for the CPUs that they hold.

    An actor lives as long as anything refers to it, such as the frames of an error's traceback. Errors may be kept: a
    notebook keeps the last one, and so does a log handler that stores records.
    """
    import ray
    from ray.actor import ActorHandle

    for handle in [kept for kept in gc.get_objects() if issubclass(type(kept), ActorHandle)]:
        if "MapWorker" in repr(handle):  # Ray Data's actors; one job runs at a time, so all of them belong to it
            ray.kill(handle)
