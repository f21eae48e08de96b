"""torch.compile, block by block as the trainer does it: few graphs for rows of any shape, and the same numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen

from model import attention
from model.config import preset
from model.packed_row import PackedRow
from model.videollama3 import VideoLLaMA3
from tests.model.oracles import Sample, packed

ROWS = 24


def _rows() -> Iterator[PackedRow]:
    """Rows of 1 to 5 samples: text alone, images of many sizes, clips."""
    rng = random.Random(0)
    for number in range(ROWS):
        samples = []
        for at in range(rng.randint(1, 5)):
            kind, items = rng.random(), list[tuple[int, int, int]]()
            if kind > 0.5:
                items = [(1, 2 * rng.randint(1, 3), 2 * rng.randint(1, 3)) for _ in range(rng.randint(1, 3))]
            elif kind > 0.3:
                items = [(rng.randint(2, 4), 4, 2 * rng.randint(1, 3))]
            samples.append(Sample.of(*items, seed=10 * number + at, pruned=True))
        row = packed(*samples)
        grids = row.pop("grid_thw").long(), row.pop("merge_sizes").long()
        yield PackedRow(**row, grid_thw=grids[0], merge_sizes=grids[1], labels=row["input_ids"]).with_media()


@torch.library.custom_op("vl3syn_tests::kernel", mutates_args=())
def _kernel(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """Stands for torch's kernel, which a compiled graph has as one node, too. What it computes does not matter."""
    return q + k + v


@_kernel.register_fake
def _(q: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(q)


_kernel.register_autograd(lambda _context, grad: (grad, grad, grad, None, None))


def _on_cuda(patched: pytest.MonkeyPatch) -> None:
    def varlen_attn(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, *others: Any, **more: Any) -> Tensor:
        repeated = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        return _kernel(q, *repeated, offsets, others[1])

    patched.setattr(attention, "takes_varlen", lambda _device, dtype: dtype == torch.bfloat16)
    patched.setattr(varlen, "varlen_attn", varlen_attn)


def _compiled(model: VideoLLaMA3, graphs: list[Any]) -> VideoLLaMA3:
    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    for block in [*model.vision.layers, *model.language.model.layers]:
        block.compile(dynamic=True, backend=backend)
    return model.train()


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_rows_of_any_shape_take_few_graphs(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph per kind of block. One more where a row has as many segments as some axis is wide: torch.compile takes
    both for the same size."""
    if half:
        _on_cuda(monkeypatch)
    graphs: list[Any] = []
    model = _compiled(VideoLLaMA3(preset("tiny")), graphs)
    shapes = set()
    for row in _rows():
        shapes.add((len(row.input_ids), len(row.segment_lengths), len(row.pixel_values), len(row.grid_thw)))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(**row, layout=model.layout(row))
    assert len(shapes) > ROWS - 5
    assert len(graphs) <= 3


def test_compiled_row_has_the_same_loss_and_gradients() -> None:
    plain, row = VideoLLaMA3(preset("tiny")).train(), next(_rows())
    compiled = _compiled(VideoLLaMA3(preset("tiny")), [])
    compiled.load_state_dict(plain.state_dict())
    for model in (plain, compiled):
        model(**row).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-5, msg=name)
