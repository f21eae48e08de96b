"""Choose the device that a model runs on, and the float type of its weights and activations."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from core.errors import UserError
from core.settings import Settings

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_OVERFLOWS_IN_FLOAT16 = frozenset({"t5", "mt5", "umt5"})
"""Types of models whose activations exceed 65,504, the largest float16. They were trained in bfloat16."""

_CPU_INFO = Path("/proc/cpuinfo")
_MULTIPLIES_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Flags of CPUs with instructions for it: CLIP is 3.6 times as fast as in float32 (benchmarks/precision.py)."""


class HasPrecision(Settings):
    """Base class of a stage or an engine whose model runs in a float type of choice.

    Attributes:
        precision: Float type of the model: `float32`, `bfloat16`, or `float16` for GPUs before A100. `auto` takes the
            fastest one of the GPU or CPU when the stage's table gets its first row; all later rows are computed in the
            same one. It is not part of the fingerprint.
    """

    fingerprint_exclude: ClassVar[tuple[str, ...]] = ("precision",)

    precision: Precision = "auto"


S = TypeVar("S", bound=Settings)


def precision_of(settings: Settings) -> Precision | None:
    """Return the precision of a stage, or of a setting of it such as its engine; None if it has no such choice."""
    if isinstance(settings, HasPrecision):
        return settings.precision
    values = (getattr(settings, name) for name in type(settings).model_fields)
    return next((value.precision for value in values if isinstance(value, HasPrecision)), None)


def with_precision(settings: S, precision: str) -> S:
    """Return the same stage with another precision, where `precision_of` finds it."""
    if isinstance(settings, HasPrecision):
        return settings.model_copy(update={"precision": precision})
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    changed = {name: with_precision(v, precision) for name, v in values.items() if isinstance(v, HasPrecision)}
    return settings.model_copy(update=changed)


def device_and_dtype(model_type: str = "", precision: Precision = "auto") -> tuple[torch.device, torch.dtype]:
    """Return the device of this process and the float type of a model on it.

    Args:
        model_type: `model_type` of the configuration of the model's language model. float32 replaces float16 for those
            that exceed it.
        precision: As for `HasPrecision`; `auto` is the fastest one here.

    Raises:
        UserError: See `sees_gpu`.
    """
    import torch

    gpu = sees_gpu()
    chosen = fastest(gpu) if precision == "auto" else precision
    if chosen == "float16" and model_type in _OVERFLOWS_IN_FLOAT16:
        chosen = "float32"
    return torch.device("cuda" if gpu else "cpu"), getattr(torch, chosen)


def fastest(gpu: bool) -> str:
    """Return the name of the fastest float type of the GPU that this process sees, else of this machine's CPU.

    Raises:
        UserError: See `sees_gpu`.
    """
    if gpu and sees_gpu():
        import torch

        return gpu_dtype(torch.cuda.get_device_capability())
    return cpu_dtype()


def sees_gpu() -> bool:
    """Return whether torch can use a GPU in this process.

    Raises:
        UserError: Ray or the user gave this process GPUs, and torch cannot use them: a model would run on the CPU.
    """
    import torch

    if torch.cuda.is_available():
        return True
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if given in ("", "-1", "NoDevFiles"):
        return False
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    raise UserError(
        f"{platform.node()}: CUDA_VISIBLE_DEVICES gives this process GPU {given}, and torch {torch.__version__} "
        f"({built}) sees none: see whether nvidia-smi works there and fits torch, or give the stage `num_gpus: 0`"
    )


def gpu_dtype(capability: tuple[int, int]) -> str:
    """Return the name of the fastest float type of a GPU.

    Args:
        capability: Compute capability: (8, 0) is the first with bfloat16 (A100); V100 is (7, 0) and T4 (7, 5).
    """
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


def cpu_dtype() -> str:
    """Return `bfloat16` if this machine's CPU has instructions that multiply it (Linux tells), else `float32`."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return "float32" if _MULTIPLIES_BFLOAT16.isdisjoint(flags) else "bfloat16"
