"""Decide how many workers a stage gets on the cluster, and which resources each of them holds."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from core.errors import UserError
from core.stages import Stage
from pipeline.recipe_file import Resources


@dataclass(frozen=True)
class Placement:
    """The number of workers of a stage, and for each worker its CPUs, GPUs and decoding threads."""

    workers: int
    num_cpus: float
    num_gpus: float
    threads: int


def place_workers(resources: Resources, stage: Stage, blocks: int) -> Placement:
    """Place workers as the recipe requests; by default as many as fit, and at most one per block.

    Raises:
        UserError: The cluster lacks the resources that one actor needs.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has = ray.cluster_resources()
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    wants = stage.gpus
    num_gpus = float(wants) if wants and with_gpu and resources.num_gpus is None else resources.num_gpus or 0.0
    # A model that wants a GPU and gets none: few copies, each with several cores of one machine.
    cores = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    shared = min(8, cores, int(has.get("CPU", 1)) // (resources.actors or 1)) if wants and not num_gpus else 1
    num_cpus = max(1, shared) if resources.num_cpus is None else resources.num_cpus
    beside = min((int(node.get("CPU", 0) / node["GPU"]) for node in with_gpu), default=1)
    by_default = wants and num_gpus and resources.num_gpus is None and resources.num_cpus is None
    threads = resources.threads or max(1, beside if by_default else math.ceil(num_cpus))
    actors = resources.actors or stage.actors
    needs = {kind: n for kind, n in (("CPU", num_cpus), ("GPU", num_gpus)) if n}
    fits = sum(min((int(node.get(kind, 0) / n) for kind, n in needs.items()), default=1) for node in nodes)
    # A cluster that was joined may grow to the requested size; one that was started here does not.
    if not (resources.actors and "RAY_ADDRESS" in os.environ):
        if not fits:
            lacking = " and ".join(f"{n:g} {kind} (there are {has.get(kind, 0):g})" for kind, n in needs.items())
            raise UserError(
                f"{stage.name}: an actor needs {lacking}; change its resources in the recipe, "
                "or give `actors` on a cluster that will grow"
            )
        return Placement(min(actors or fits, fits, blocks), num_cpus, num_gpus, threads)
    return Placement(min(resources.actors, blocks), num_cpus, num_gpus, threads)
