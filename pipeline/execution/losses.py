"""What a job lost with workers and nodes that died, and which node it waits for."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from pipeline.pools.images import Failure

TRIES = 2
"""How often rows that cannot be divided are tried alone in a worker before they are stored as errors."""

_NOTICED_S = 40.0
"""Seconds within which Ray notices that a node was lost; its workers are gone at once. Ray's default is about 25."""


class NodeWatch:
    """Whether nodes were lost since this object was made."""

    def __init__(self) -> None:
        self._before, self._joined = _nodes()

    def lost_one(self, wait: bool = False) -> bool:
        """Return whether a node was lost; with `wait`, after the time that Ray may need to notice it."""
        deadline = time.monotonic() + (_NOTICED_S if wait and len(self._joined) > 1 else 0)
        while not (lost := bool(_nodes()[0] - self._before)) and time.monotonic() < deadline:
            time.sleep(1)
        return lost


def _nodes() -> tuple[set[str], set[str]]:
    """Return the ids of nodes that were lost, and of those that are alive."""
    import ray

    lost, alive = set[str](), set[str]()
    for node in ray.nodes():
        (alive if node["Alive"] else lost).add(node["NodeID"])
    return lost, alive


class WorkerDeaths(logging.Handler):
    """A log handler that collects why blocks were lost: Ray Data skips them and gives the reason only in its log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._errors.append(_without_frames(record.exc_info[1]))

    def failure(self) -> Failure:
        """Return the error of a row that was alone in its worker; it can be retried if memory or a machine was lost."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError

        tries = f"at each of {TRIES} tries alone"
        for error in self._errors:
            if isinstance(error, OutOfMemoryError) or "OOM" in str(error) or "memory pressure" in str(error):
                return Failure(f"killed its worker: out of memory {tries}", retry=True)
            if isinstance(error, NodeDiedError) or "node died" in str(error).lower():
                return Failure(f"killed its worker: the machine was lost {tries}", retry=True)
        return Failure(f"killed its worker: its process ended {tries}, as in a crash of a decoder")

    def raise_others(self, nodes: NodeWatch) -> None:
        """Raise an error that is not the death of a worker: the block did not cause it."""
        from ray.exceptions import (
            LocalRayletDiedError,
            NodeDiedError,
            ObjectLostError,
            OutOfMemoryError,
            RayActorError,
            WorkerCrashedError,
        )

        for error in self._errors:
            died = isinstance(error, RayActorError | WorkerCrashedError | OutOfMemoryError | NodeDiedError)
            with_node = isinstance(error, LocalRayletDiedError | ObjectLostError)
            if with_node and nodes.lost_one(wait=True):
                continue
            if not died or failed_to_start(error):
                raise error


def _without_frames(error: BaseException) -> BaseException:
    """Return an error without its traceback and those of its causes.

    Their frames refer to all actors of the job. An actor that Ray Data releases would live on, and keep its CPUs and
    GPUs from an actor that waits for a place: for ever, if that one has the last blocks.
    """
    link: BaseException | None = error
    while link and link.__traceback__:
        link = link.with_traceback(None).__cause__ or link.__context__
    return error


def failed_to_start(error: BaseException) -> bool:
    """Return whether an actor's constructor raised: a bug (its traceback is in the text), not a worker's death."""
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError) and error.actor_init_failed


def awaited_node() -> str:
    """Return what the cluster lacks for the work that waits, as a line for the user; an empty text if nothing lacks.

    A job whose nodes were lost waits until one of their kind joins: on a cluster of spot machines, one will.
    """
    ray: Any = sys.modules.get("ray")
    if not (ray and ray.is_initialized()):
        return ""
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        demands = get_cluster_status(ray.get_runtime_context().gcs_address).resource_demands.ray_task_actor_demand
    except ray.exceptions.RayError:
        return ""  # the cluster is gone, or does not answer in time: the job goes on, or says so
    for bundle in (each.bundle for demand in demands for each in demand.bundles_by_count):
        if not any(all(node.get(kind, 0) >= amount for kind, amount in bundle.items()) for node in nodes):
            needs = " and ".join(f"{amount:g} {kind}" for kind, amount in sorted(bundle.items()) if amount)
            return f"waiting for a node with {needs}: none of the {len(nodes)} nodes has it"
    return ""
