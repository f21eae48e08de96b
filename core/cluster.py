"""Connect to a Ray cluster, or start Ray on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import UserError


def is_joined() -> bool:
    """Return whether RAY_ADDRESS names a cluster to join. Ray takes `local` for a new Ray on this machine."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def refuse_relative(path: str, what: str) -> None:
    """Refuse a relative path, if a cluster is to be joined: its nodes share no working directory.

    `ray job submit` starts a job in a copy of its working directory: what is written there is lost with the job.

    Args:
        path: A path or URL.
        what: What it is for, or the option that gives it, for the error.

    Raises:
        UserError: The path is relative.
    """
    if is_joined() and "://" not in path and not os.path.isabs(os.path.expanduser(path)):
        raise UserError(
            f"{what}: {path} is a relative path, and the nodes of a cluster share no working directory: give an "
            "absolute path or a URL"
        )


def was_started_here() -> bool:
    """Return whether `ray start` made a node on this machine, which `connect` joins without RAY_ADDRESS."""
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return os.path.exists(os.path.join(temporary, "ray", "ray_current_cluster"))


def is_without_ray() -> bool:
    """Return whether there is neither a cluster to join nor a Ray in this process: one would have to be started."""
    ray: Any = sys.modules.get("ray")
    return "RAY_ADDRESS" not in os.environ and not (ray and ray.is_initialized())


def connect(**how: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, else start one on this machine. Do nothing if Ray is initialised.

    A cluster of `ray start` on this machine is joined without RAY_ADDRESS too, if it has no further node: nobody has
    checked whether other nodes see the same files.

    A Ray that is started here sends no statistics of its use, unless RAY_USAGE_STATS_ENABLED says otherwise.

    Args:
        how: Arguments for `ray.init`.

    Raises:
        UserError: Ray does not start, for example on an overloaded machine, or RAY_ADDRESS does not answer; or it does
            not name the cluster that runs here.
    """
    if not is_joined():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    try:
        with _own_handler():
            ray.init(**how)
    except Exception as error:
        # Ray raises a plain Exception if a node does not start in time. Other subclasses can be bugs.
        if type(error) is not Exception and not isinstance(error, OSError | RuntimeError | ray.exceptions.RayError):
            raise
        ray.shutdown()
        reason = " ".join(str(error).split())[:200]
        if address := os.environ.get("RAY_ADDRESS"):
            raise UserError(
                f"Ray cannot be reached at RAY_ADDRESS={address} ({reason}); see whether it runs, and whether "
                "RAY_AUTH_MODE and RAY_AUTH_TOKEN are those of the cluster"
            ) from error
        raise UserError(
            f"Ray did not start on this machine ({reason}); what is stored stays: see whether memory, disk and CPU are "
            "free, then run again to go on"
        ) from error
    if not is_joined() and sum(node["Alive"] for node in ray.nodes()) > 1:
        ray.shutdown()
        raise UserError(
            "this machine is a node of a Ray cluster: set RAY_ADDRESS=auto to compute on all of its nodes, or "
            "RAY_ADDRESS=local to compute on this machine only"
        )


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, if it has one: that of `ray.init` exits with code 15 and says nothing."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM and callable(before):  # it came while Ray started
            before(signal.SIGTERM, None)
        raise
    finally:
        if before not in (None, signal.SIG_DFL, signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, before)
