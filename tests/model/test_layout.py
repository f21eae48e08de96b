"""What the host knows of a row, and that no row makes the host wait for the device.

Tensors on the `meta` device have shapes and no numbers. Whatever would have to be read from a GPU fails there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import attention
from model.config import ModelConfig, preset
from model.packed_row import PackedRow
from model.videollama3 import VideoLLaMA3
from tests.model.oracles import IMAGE, VIDEO, Sample, packed

SAMPLES = [
    Sample.of((1, 4, 6), seed=1),
    Sample.of((4, 4, 6), seed=4, pruned=True),
    Sample.of(seed=6),
    Sample.of((1, 2, 2), (1, 8, 3), seed=2),
]


def _row() -> PackedRow:
    tensors = packed(*SAMPLES)
    ids = tensors["input_ids"]
    return PackedRow(**tensors, labels=torch.where(ids < 256, ids, -100))


class Copies(TorchDispatchMode):
    """Counts copies from the host to `meta`, and those of them that the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.blocking = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and out.device.type == "meta":
            self.all += 1
            self.blocking += not kwargs.get("non_blocking", False)
        return out


@contextmanager
def _as_on_cuda(kernel: bool) -> Iterator[None]:
    """Let half precision take torch's kernel for CUDA, which has a form for `meta`."""
    with pytest.MonkeyPatch.context() as patched:
        if kernel:
            patched.setattr(attention, "takes_varlen", lambda _device, dtype: dtype in attention.HALF)
        yield


@pytest.mark.parametrize("kind", ["qwen2", *(pytest.param(k, marks=pytest.mark.thorough) for k in ("qwen3", "llama"))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_row_is_learned_without_waiting_for_the_device(kind: str, dtype: torch.dtype, checkpointing: bool) -> None:
    tiny = preset("tiny")
    config = ModelConfig(**{**dict(tiny), "language": {**tiny.language, "model_type": kind}})
    model = VideoLLaMA3(config, "meta").to(dtype).train()
    if checkpointing:
        model.enable_checkpointing()
    row = _row()
    with _as_on_cuda(dtype == torch.bfloat16), Copies() as copies:
        layout = model.layout(row)
        model(**row.to("meta", non_blocking=True), layout=layout, label_count=7.0).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert copies.all > 10
    assert copies.blocking == 0


def test_device_is_waited_for_without_a_layout() -> None:
    """So the test above would see it."""
    model = VideoLLaMA3(preset("tiny"), "meta")
    with pytest.raises(NotImplementedError, match="meta"):
        model(**_row().to("meta"))


def test_row_with_its_layout_has_the_loss_of_the_row_alone() -> None:
    model, row = VideoLLaMA3(preset("tiny")), _row()
    with torch.no_grad():
        assert torch.equal(model(**row, layout=model.layout(row)).loss, model(**row).loss)


def test_layout_says_where_everything_lies() -> None:
    row = _row()
    layout = VideoLLaMA3(preset("tiny"), "meta").layout(row)
    ids, firsts = row.input_ids.tolist(), {0}
    for sample in SAMPLES:
        firsts.add(max(firsts) + len(sample.ids))
    assert layout.lengths == tuple(len(sample.ids) for sample in SAMPLES)
    assert layout.placeholders_K.tolist() == [n for n, i in enumerate(ids) if i in (IMAGE, VIDEO)]
    assert layout.learned_L is not None
    assert layout.learned_L.tolist() == [n for n, i in enumerate(ids) if i < 256 and n not in firsts]
    assert layout.positions().tolist() == [n for sample in SAMPLES for n in range(len(sample.ids))]
    keep = [k for sample in SAMPLES for k in sample.keep]
    assert layout.kept_K is not None
    assert layout.kept_K.tolist() == [n for n, kept in enumerate(keep) if kept]
    assert layout.mask_length == len(keep)
    assert layout.grids == [grid for sample in SAMPLES for grid in sample.grids]
    assert layout.merges == [m for sample in SAMPLES for m in sample.merges]


def test_layout_of_text_has_no_media() -> None:
    ids = torch.tensor([1, 2, 3])
    layout = VideoLLaMA3(preset("tiny"), "meta").layout({"input_ids": ids})
    assert (layout.lengths, layout.grids, layout.merges) == ((3,), [], [])
    assert layout.kept_K is layout.learned_L is layout.mask_length is None
    assert not len(layout.placeholders_K)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_go_to_the_device_of_a_row(device: str) -> None:
    moved: Tensor = attention.to_device(torch.arange(3), device)
    assert moved.device.type == device
