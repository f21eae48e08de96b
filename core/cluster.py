"""Connect to a Ray cluster, or start Ray on this machine."""

from __future__ import annotations

import os
import sys
from typing import Any

from core.errors import UserError


def is_joined() -> bool:
    """Return whether RAY_ADDRESS names a cluster to join. Ray takes `local` for a new Ray on this machine."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


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

    Args:
        how: Arguments for `ray.init`.

    Raises:
        UserError: Ray does not start, for example on an overloaded machine, or RAY_ADDRESS does not answer.
    """
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(**how)
    except Exception as error:
        # Ray raises a plain Exception if a node does not start in time. Other subclasses can be bugs.
        if type(error) is not Exception and not isinstance(error, OSError | RuntimeError | ray.exceptions.RayError):
            raise
        ray.shutdown()
        reason = " ".join(str(error).split())[:200]
        if address := os.environ.get("RAY_ADDRESS"):
            raise UserError(
                f"Ray cannot be reached at RAY_ADDRESS={address} ({reason}); see whether it runs"
            ) from error
        raise UserError(
            f"Ray did not start on this machine ({reason}); nothing was computed: see whether memory, disk and CPU are "
            "free, then run again"
        ) from error
