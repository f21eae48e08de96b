"""Ray, joined or started."""

from __future__ import annotations

import os
from typing import Any

from core.errors import UserError


def connect(**how: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, else start one on this machine; nothing where there is one already.

    Args:
        how: For `ray.init`.

    Raises:
        UserError: Ray does not start, as on a machine that has too much to do, or nobody answers at RAY_ADDRESS.
    """
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(**how)
    except Exception as error:
        # Of a node that is not up in time Ray raises a plain Exception. What has a kind of its own can be a bug.
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
