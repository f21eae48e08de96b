from __future__ import annotations

import pytest
import torch

from model.weights_io import weights_dtype


@pytest.mark.parametrize(
    ("name", "gpu", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, None),
        ("float32", True, torch.float32),
        ("float16", False, torch.float16),
    ],
)
def test_weights_are_bfloat16_on_a_gpu_by_default(name: str, gpu: bool, dtype: torch.dtype | None) -> None:
    assert weights_dtype(name, gpu) == dtype
