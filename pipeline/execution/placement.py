"""Decide how many workers a stage gets on the cluster, and which resources each of them holds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.cpus import count_cpus
from core.errors import UserError
from core.stages import Stage
from pipeline.recipe_file import Resources

_MODEL_CPUS = 8  # at most, of one copy of a model that wants a GPU and gets none


@dataclass(frozen=True)
class Placement:
    """The number of workers of a stage, and for each worker its CPUs, GPUs and decoding threads."""

    workers: int
    num_cpus: float
    num_gpus: float
    threads: int


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
        per_node = [[int(node.get(kind, 0) / amount) for kind, amount in needs.items()] for node in self.nodes]
        return sum(min(fitting, default=1) for fitting in per_node)


def place_workers(resources: Resources, stage: Stage, blocks: int) -> Placement:
    """Place workers as the recipe requests; by default as many as fit, and at most one per block.

    Raises:
        UserError: The cluster lacks the resources that one actor needs.
    """
    return _place(_connected_cluster(), resources, stage, blocks)


def place_locally(resources: Resources, stage: Stage, blocks: int) -> Placement:
    """Place workers as `place_workers` does, on this machine without its GPUs."""
    machine = {"CPU": float(count_cpus())}
    return _place(_Cluster(nodes=[machine], total=machine), resources, stage, blocks)


def _place(cluster: _Cluster, resources: Resources, stage: Stage, blocks: int) -> Placement:
    num_gpus = _gpus_per_worker(resources, stage, cluster)
    num_cpus = _cpus_per_worker(resources, stage, cluster, num_gpus)
    needs = {kind: amount for kind, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount}
    return Placement(
        workers=min(_most_workers(resources, stage, cluster, needs), blocks),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        threads=_decoding_threads(resources, cluster, num_cpus, num_gpus),
    )


def _connected_cluster() -> _Cluster:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return _Cluster(nodes=nodes, total=ray.cluster_resources())


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


def _most_workers(resources: Resources, stage: Stage, cluster: _Cluster, needs: Mapping[str, float]) -> int:
    """Return how many workers with these needs the stage may have: as many as were requested and as fit.

    Raises:
        UserError: Not one fits, and the cluster will not grow.
    """
    if resources.actors and "RAY_ADDRESS" in os.environ:
        return resources.actors  # a cluster that was joined may grow to this size; one that was started here does not
    capacity = cluster.capacity(needs)
    if not capacity:
        lacking = " and ".join(f"{n:g} {kind} (there are {cluster.total.get(kind, 0):g})" for kind, n in needs.items())
        raise UserError(
            f"{stage.name}: an actor needs {lacking}; change its resources in the recipe, "
            "or give `actors` on a cluster that will grow"
        )
    return min(resources.actors or stage.actors or capacity, capacity)


def is_for_driver(stage: Stage, resources: Resources, rows: int) -> bool:
    """Return whether the driver computes these rows (`Stage.driver_rows`): not if the recipe asks for workers."""
    for_workers = (resources.actors, resources.num_cpus, resources.num_gpus)
    return rows <= stage.driver_rows and not stage.gpus and for_workers == (None, None, None)
