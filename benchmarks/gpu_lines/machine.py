"""The machine: what numbers depend on besides the code."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import torch

from gpu_lines.proof import Figure, Place
from model.training.flops import peak_flops


def machine(place: Place) -> Iterator[Figure]:
    import transformers

    yield Figure("Python", platform.python_version())
    yield Figure("PyTorch", torch.__version__)
    yield Figure("transformers", transformers.__version__)
    yield Figure("cores", os.cpu_count() or 1)
    if not place.cuda:
        yield Figure("GPU", None)
        return
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device here: a dry run (--dry) needs none")
    torch.zeros(1, device="cuda")
    yield Figure("GPU", torch.cuda.get_device_name())
    yield Figure("GPU memory", torch.cuda.get_device_properties(0).total_memory / 2**30, "GiB")
    yield Figure("CUDA", str(torch.version.cuda))
    yield Figure("cuDNN", str(torch.backends.cudnn.version()))
    peak = peak_flops(torch.device("cuda"))
    yield Figure("dense bf16 peak that MFU counts with", peak and peak / 1e12, "TFLOP/s")
