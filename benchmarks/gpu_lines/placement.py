"""Placement by Ray: which device an actor sees that asks for a GPU, or for half of one. A dry run has a counted GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from gpu_lines.proof import Figure, Place

CORES = 2


def placement(place: Place) -> Iterator[Figure]:
    import ray

    from core.cluster import connect

    os.environ["RAY_ADDRESS"] = "local"
    connect(num_cpus=CORES, num_gpus=1 if place.dry else None, include_dashboard=False, log_to_driver=False)
    try:
        yield Figure("Ray", ray.__version__)
        yield Figure("GPUs that Ray counts", ray.cluster_resources().get("GPU", 0.0), least=1)
        (one,) = _seen(place, actors=1, num_gpus=1)
        yield Figure("an actor with num_gpus: 1: devices", len(one), least=1, most=1)
        halves = _seen(place, actors=2, num_gpus=0.5)
        yield Figure("two with num_gpus: 0.5: devices of both together", len(set().union(*halves)), least=1, most=1)
        yield Figure("and of each", max(map(len, halves)), least=1, most=1)
    finally:
        ray.shutdown()


def _seen(place: Place, actors: int, num_gpus: float) -> list[set[str]]:
    """Return the devices that each of some actors sees, all of which are alive at once."""
    import ray

    kind: Any = ray.remote(num_cpus=0, num_gpus=num_gpus)(_Actor)
    alive = [kind.remote() for _ in range(actors)]
    seen: list[set[str]] = ray.get([actor.devices.remote(place.cuda) for actor in alive])
    for actor in alive:
        ray.kill(actor)
    return seen


class _Actor:
    def devices(self, cuda: bool) -> set[str]:
        """Return the ids of the GPUs that CUDA sees, after a sum on each; without CUDA those that Ray assigned."""
        if not cuda:
            return set(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
        import torch

        found = set()
        for number in range(torch.cuda.device_count()):
            assert torch.ones(8, device=f"cuda:{number}").sum().item() == 8
            found.add(str(torch.cuda.get_device_properties(number).uuid))
        return found
