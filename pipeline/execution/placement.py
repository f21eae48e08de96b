"""Decide how many workers a stage gets on the cluster, and which resources each of them holds."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from core.cluster import is_joined, is_without_ray, was_started_here
from core.cpus import count_cpus
from core.errors import UserError
from core.stages import Stage
from pipeline.execution.ray_session import start_ray
from pipeline.recipe_file import Resources

_MODEL_CPUS = 8  # at most, of one copy of a model that wants a GPU and gets none


@dataclass(frozen=True)
class Placement:
    """The workers of a stage.

    Attributes:
        workers: How many there are at the start.
        most: How many there may be when nodes join the cluster, at least `workers`.
        num_cpus: CPUs of each worker.
        num_gpus: GPUs of each worker.
        threads: Decoding threads of each worker.
    """

    workers: int
    most: int
    num_cpus: float
    num_gpus: float
    threads: int

    def at_most(self, blocks: int) -> Self:
        """Return the placement for so many blocks: no worker is without one."""
        return replace(self, workers=min(self.workers, blocks), most=min(self.most, blocks))


@dataclass(frozen=True)
class _Cluster:
    """The resources of the cluster's nodes that are alive, such as `{"CPU": 8.0, "GPU": 1.0}`, and their sum."""

    nodes: Sequence[Mapping[str, float]]
    total: Mapping[str, float]

    @property
    def gpu_nodes(self) -> list[Mapping[str, float]]:
        return [node for node in self.nodes if node.get("GPU", 0) >= 1]

    def capacity(self, needs: Mapping[str, float]) -> int:
        """Return how many workers fit, if each holds `needs` of one node."""
        per_node = [[_fitting(node, kind, amount) for kind, amount in needs.items()] for node in self.nodes]
        return sum(min(fitting, default=1) for fitting in per_node)

    def largest(self, kind: str) -> float:
        """Return the most of a resource that one node has."""
        return max((node.get(kind, 0) for node in self.nodes), default=0)


def _fitting(node: Mapping[str, float], kind: str, amount: float) -> int:
    """Return how often an amount of a resource fits on a node. A part of a GPU is of one GPU."""
    if kind == "GPU" and amount < 1:
        return int(node.get(kind, 0)) * int(1 / amount)
    return int(node.get(kind, 0) / amount)


def place_workers(resources: Resources, stage: Stage) -> Placement:
    """Place workers as the recipe requests; by default as many as fit.

    Raises:
        UserError: The cluster lacks the resources that one actor needs.
    """
    return _place(_connected_cluster(), resources, stage)


def place_locally(resources: Resources, stage: Stage, blocks: int) -> Placement:
    """Place workers as `place_workers` does, on this machine without its GPUs; at most one per block."""
    return _place(_machine(gpus=0), resources, stage).at_most(blocks)


def check_placement(resources: Resources, stage: Stage) -> None:
    """Check that a worker of the stage fits: on the cluster that a run joins, else on this machine.

    Raises:
        UserError: None fits; or the cluster cannot be reached.
    """
    if is_joined() or not is_without_ray():
        start_ray()
        cluster = _connected_cluster()
        if not cluster.largest("CPU"):
            return  # its first node is still to come; `place_workers` checks again
    elif was_started_here():
        return  # likewise: it may be stale, and few rows need no Ray
    else:
        asks_for_gpus = resources.num_gpus or stage.gpus > 1  # one GPU is the default only where there is one
        cluster = _machine(_count_gpus() if asks_for_gpus else 0)
    _place(cluster, resources, stage)


def _place(cluster: _Cluster, resources: Resources, stage: Stage) -> Placement:
    num_gpus = _gpus_per_worker(resources, stage, cluster)
    num_cpus = _cpus_per_worker(resources, stage, cluster, num_gpus)
    needs = {kind: amount for kind, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount}
    workers = _first_workers(resources, stage, cluster, needs)
    return Placement(
        workers=workers,
        most=resources.actors or stage.actors or sys.maxsize if is_joined() else workers,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        threads=_decoding_threads(resources, cluster, num_cpus, num_gpus),
    )


def _connected_cluster() -> _Cluster:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return _Cluster(nodes=nodes, total=ray.cluster_resources())


def _machine(gpus: int) -> _Cluster:
    machine = {"CPU": float(count_cpus()), "GPU": float(gpus)}
    return _Cluster(nodes=[machine], total=machine)


def _count_gpus() -> int:
    """Return how many GPUs a Ray that is started on this machine counts."""
    from ray._private.accelerators import get_accelerator_manager_for_resource  # Ray has no public way

    manager = get_accelerator_manager_for_resource("GPU")
    visible = manager.get_current_process_visible_accelerator_ids()
    count: int = manager.get_current_node_num_accelerators()
    return count if visible is None else min(count, len(visible))


def _gpus_per_worker(resources: Resources, stage: Stage, cluster: _Cluster) -> float:
    if resources.num_gpus is not None:
        return resources.num_gpus
    return float(stage.gpus) if cluster.gpu_nodes else 0.0


def _cpus_per_worker(resources: Resources, stage: Stage, cluster: _Cluster, num_gpus: float) -> float:
    """Return one CPU, or several of one node for a model that wants a GPU and gets none: few copies fit in memory."""
    if resources.num_cpus is not None:
        return resources.num_cpus
    if num_gpus or not stage.gpus:
        return 1
    largest_node = max((int(node.get("CPU", 0)) for node in cluster.nodes), default=1)
    share = int(cluster.total.get("CPU", 1)) // (resources.actors or 1)
    return max(1, min(_MODEL_CPUS, largest_node, share))


def _decoding_threads(resources: Resources, cluster: _Cluster, num_cpus: float, num_gpus: float) -> int:
    """Return one thread per CPU of the worker or, with the default CPUs and GPUs, as many as a node has per GPU."""
    if resources.threads:
        return resources.threads
    if num_gpus and resources.num_gpus is None and resources.num_cpus is None:
        return max(1, min((int(node.get("CPU", 0) / node["GPU"]) for node in cluster.gpu_nodes), default=1))
    return max(1, math.ceil(num_cpus))


def _first_workers(resources: Resources, stage: Stage, cluster: _Cluster, needs: Mapping[str, float]) -> int:
    """Return how many workers with these needs the stage starts with: as many as were requested and as fit.

    Raises:
        UserError: Not one fits, and the cluster will not grow.
    """
    if resources.actors and is_joined():
        return resources.actors  # those that do not fit wait for a node; a cluster that was started here gets none
    capacity = cluster.capacity(needs)
    if not capacity:
        needed = " and ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        largest = " and ".join(f"{cluster.largest(kind):g} {kind}" for kind in needs)
        raise UserError(
            f"{stage.name}: an actor needs {needed} on one node, and the nodes have at most {largest}; change its "
            "resources in the recipe, or give `actors` on a cluster that will grow"
        )
    return min(resources.actors or stage.actors or capacity, capacity)


def is_for_driver(stage: Stage, resources: Resources, rows: int) -> bool:
    """Return whether the driver computes these rows (`Stage.driver_rows`): not if the recipe asks for workers."""
    for_workers = (resources.actors, resources.num_cpus, resources.num_gpus)
    return rows <= stage.driver_rows and not stage.gpus and for_workers == (None, None, None)
