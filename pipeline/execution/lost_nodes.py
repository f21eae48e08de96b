"""Nodes that the Ray cluster lost while a job runs: one line for each, instead of Ray's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

_LEFT = (1, 4)  # Ray's numbers for the end of a node: as expected, or because it was idle
_MOST_TASKS = 1000  # of a node that are counted


class LostNodes:
    """The nodes of the cluster, as far as they were seen."""

    def __init__(self) -> None:
        self._alive: set[str] = set()

    def look(self) -> Iterator[str]:
        """Yield a line for each node that was lost since the last look; none if Ray does not run in this process."""
        ray: Any = sys.modules.get("ray")
        if not (ray and ray.is_initialized()):
            return
        try:
            nodes = ray.nodes()
        except ray.exceptions.RayError:
            return  # the cluster is gone: the job says so
        for node in nodes:
            if node["NodeID"] in self._alive and not node["Alive"] and node.get("DeathReason") not in _LEFT:
                yield f"node {node['NodeManagerAddress']} was lost; {_cost(node['NodeID'])}"
        self._alive = {node["NodeID"] for node in nodes if node["Alive"]}


def _cost(node: str) -> str:
    """Return what the loss of a node costs this job."""
    parts = _parts_under_way(node)
    if parts is None:
        return "its parts under way are computed again"
    if not parts:
        return "it had no part under way"
    return "1 part under way is computed again" if parts == 1 else f"{parts:,} parts under way are computed again"


def _parts_under_way(node: str) -> int | None:
    """Return how many tasks of this job ran on a node when it was lost; None if the dashboard does not say."""
    import ray
    from ray.util.state import list_tasks
    from ray.util.state.exception import RayStateApiException

    job = ray.get_runtime_context().get_job_id()
    filters = [("node_id", "=", node), ("job_id", "=", job), ("state", "!=", "FINISHED")]
    try:
        tasks = list_tasks(filters=filters, limit=_MOST_TASKS, timeout=10, detail=True, raise_on_missing_output=False)
    except RayStateApiException:
        return None
    return len([task for task in tasks if task.start_time_ms and task.type != "ACTOR_CREATION_TASK"])
