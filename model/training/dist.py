"""The workers of a training: one process, or several that are joined by torch.distributed (Ray Train does this).

Several workers shard weights, gradients and moments (FSDP2, `fully_shard`), over NCCL on GPUs and gloo on CPUs.
Checkpoints store full tensors, so any number of workers can continue from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from model.videollama3 import VideoLLaMA3

T = TypeVar("T")


@dataclass(frozen=True)
class DistContext:
    """This worker's view of all workers.

    Attributes:
        device: Device of this worker.
        rank: Number of this worker, from 0.
        size: Number of workers.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @staticmethod
    def here() -> DistContext:
        """Return this process's context: from torch.distributed if it is initialised, else a single worker.

        The device is the current GPU if one is available, else the CPU.
        """
        import torch.distributed as dist

        joined = dist.is_available() and dist.is_initialized()
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        return DistContext(device, dist.get_rank(), dist.get_world_size()) if joined else DistContext(device)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all workers."""
        if self.size == 1:
            return list(values)
        import torch.distributed as dist

        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        result: list[float] = summed.tolist()
        return result

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all workers, in the order of ranks."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def shard(model: VideoLLaMA3, world: DistContext, half: bool) -> None:
    """Shard a model among the workers, block by block.

    Args:
        model: The model; it is changed in place.
        world: The workers.
        half: Compute in bf16. Weights and the reduction of gradients stay fp32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32)
    inside = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32, cast_forward_inputs=False)
    for block in [*model.vision.layers, *model.language.model.layers]:
        fully_shard(block, mesh=mesh, mp_policy=inside)  # cast_forward_inputs=False: rotary angles stay fp32
    for module in [model.vision, model.projector]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)  # embeddings and head together: small models tie them
    register_fsdp_forward_method(model, "generate")


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one, on every worker. Other tensors are returned unchanged."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(
    tensors: Mapping[str, Tensor], world: DistContext, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield names and full tensors, as `dtype`, on the CPU of rank 0; on other ranks nothing. All ranks must call this.

    Tensors are gathered one at a time, so a GPU holds one full tensor at a time.
    """
    for name, tensor in tensors.items():
        full = full_tensor(tensor.detach())
        if world.is_main:
            yield name, full.to("cpu", dtype).contiguous()


def assign(target: Tensor, source: Tensor) -> None:
    """Copy a full tensor into one that may be sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(target, DTensor):
        source = distribute_tensor(source.to(target.device), target.device_mesh, target.placements)
    with torch.no_grad():
        target.copy_(source)
