"""Nodes that the Ray cluster lost while a job runs: one line for each, instead of Ray's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

_LEFT = (1, 4)  # Ray's numbers for the end of a node: as expected, or because it was idle


class LostNodes:
    """The nodes of the cluster, as far as they were seen."""

    def __init__(self) -> None:
        self._alive: set[str] = set()

    def look(self) -> Iterator[str]:
        """Yield a line for each node that was lost since the last look; none if Ray does not run in this process."""
        ray: Any = sys.modules.get("ray")
        # While another thread imports it, a module lacks what comes later in it.
        if not getattr(ray, "is_initialized", bool)():
            return
        try:
            nodes = ray.nodes()
        except ray.exceptions.RayError:
            return  # the cluster is gone: the job says so
        for node in nodes:
            if node["NodeID"] in self._alive and not node["Alive"] and node.get("DeathReason") not in _LEFT:
                yield f"node {node['NodeManagerAddress']} was lost; its parts under way are computed again"
        self._alive = {node["NodeID"] for node in nodes if node["Alive"]}
