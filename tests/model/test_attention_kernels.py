"""Which kernel attention takes on CUDA, seen on a CPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

from model import attention
from model.attention import WHOLE, Segments, segment_attention
from model.config import preset
from model.videollama3 import VideoLLaMA3
from tests.model.oracles import Sample, packed

LENGTHS = [3, 5, 3, 1, 5, 7, 3]


def _row(shared: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(27, h, 8, generator=generator).requires_grad_() for h in (4, 4 // shared, 4 // shared)]


def _by_segment(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """The textbook, one segment after the other."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    out = []
    for start, end in itertools.pairwise([0, *itertools.accumulate(LENGTHS)]):
        scores = torch.einsum("nhd,mhd->hnm", q[start:end], k[start:end]) / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        out.append(torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v[start:end]))
    return torch.cat(out)


def _kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts: torch.Tensor,
    _starts_k: torch.Tensor,
    longest: int,
    _longest_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """torch's kernel as PyTorch 2.11 has it: without shared heads. A window is the tokens before and behind."""
    assert q.dtype == k.dtype == v.dtype
    assert q.shape == k.shape == v.shape
    assert longest == starts.diff().max()
    before, behind = (size if size >= 0 else len(q) for size in window_size)
    out = []
    for start, end in itertools.pairwise(starts.tolist()):
        distance = torch.arange(end - start)[None] - torch.arange(end - start)[:, None]
        mask = (-before <= distance) & (distance <= behind)
        parts = (x[start:end].transpose(0, 1) for x in (q, k, v))
        out.append(nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shared", [1, 4])
def test_kernel_of_pytorch_2_11_gets_a_head_for_each_query(
    causal: bool, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", _kernel)
    monkeypatch.setattr(attention, "KERNEL_SHARES_HEADS", False)
    row = _row(shared=shared)
    ours, theirs = attention._varlen(*row, Segments.from_lengths(LENGTHS), causal, None), _by_segment(*row, causal)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    weight = torch.randn_like(ours)
    gradients = (torch.autograd.grad((out * weight).sum(), row) for out in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


class OnHopper:
    """What torch asks of a tensor before it chooses cuDNN: the encoder's queries, keys and values on an H100."""

    is_cuda, dtype, shape = True, torch.bfloat16, (7544, 16, 72)
    device = torch.device("cuda", 0)

    def size(self, dim: int) -> int:
        return self.shape[dim]


def test_window_keeps_attention_from_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's own choice. 2.11 has none, and after 2.14 it is another function."""
    if not hasattr(varlen, "_can_use_cudnn"):
        pytest.skip("this PyTorch chooses otherwise")
    monkeypatch.setattr(varlen, "_should_use_cudnn", lambda _device: True)
    windows: list[tuple[int, int]] = []

    def kernel(q: torch.Tensor, *_: Any, window_size: tuple[int, int], **others: Any) -> torch.Tensor:
        windows.append(window_size)
        return q

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    for causal in (False, True):
        attention._varlen(*_row(), Segments.from_lengths(LENGTHS), causal, None)
    tensor: Any = OnHopper()
    chosen = [varlen._can_use_cudnn(tensor, tensor, tensor, 1564, list(w)) for w in [(-1, -1), *windows]]
    assert chosen == [True, False, False]


def test_autocast_reaches_the_kernel_in_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with the kernel of PyTorch 2.11: the same loss as by groups."""
    samples = [Sample.of((1, 4, 6), (2, 4, 4), seed=1), Sample.of(seed=2), Sample.of((1, 2, 2), seed=3)]
    row, model, windows = packed(*samples), VideoLLaMA3(preset("tiny")), list[tuple[int, int]]()

    def kernel(*args: Any, window_size: tuple[int, int], **others: Any) -> torch.Tensor:
        windows.append(window_size)
        return _kernel(*args, window_size=window_size, **others)

    def loss() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            value: torch.Tensor = model(**row, labels=row["input_ids"]).loss
        return value

    expected = loss()
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setattr(attention, "KERNEL_SHARES_HEADS", False)
    monkeypatch.setattr(attention, "takes_varlen", lambda _device, dtype: dtype == torch.bfloat16)
    torch.testing.assert_close(loss(), expected, atol=1e-3, rtol=1e-3)
    assert windows == [(WHOLE, WHOLE)] * len(model.vision.layers) + [(-1, 0)] * len(model.language.model.layers)


@pytest.mark.parametrize(
    ("device", "dtype", "taken"),
    [
        ("cuda", torch.bfloat16, True),
        ("cuda", torch.float16, True),
        ("cuda", torch.float32, False),
        ("cpu", torch.bfloat16, False),
    ],
)
def test_kernel_is_taken_on_cuda_in_half_precision(device: str, dtype: torch.dtype, taken: bool) -> None:
    assert attention.takes_varlen(device, dtype) == taken


@pytest.mark.parametrize(("width", "taken"), [(8, True), (72, True), (12, False), (256, True), (264, False)])
def test_width_of_a_head_that_the_kernel_refuses_goes_to_sdpa(
    width: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes multiples of 8 up to 256; a recipe's sizes may be others."""
    calls = []

    def kernel(*row: Any, **_others: Any) -> torch.Tensor:
        calls.append(row)
        return _kernel(*row)

    monkeypatch.setattr(attention, "takes_varlen", lambda _device, _dtype: True)
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    row = [torch.randn(27, 2, width) for _ in range(3)]
    ours = segment_attention(*row, Segments.from_lengths(LENGTHS))
    torch.testing.assert_close(ours, _by_segment(*row, causal=False), atol=1e-5, rtol=1e-4)
    assert bool(calls) == taken


@pytest.mark.parametrize("prompt", [False, True])
def test_float32_off_the_cpu_shares_no_heads(prompt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA shared heads in float32 take the plain formula, and its N x N scores. A packed row, and a prompt."""
    seen: list[tuple[int, int, bool]] = []
    real = nn.functional.scaled_dot_product_attention

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **others: Any) -> torch.Tensor:
        assert k.shape == v.shape
        seen.append((q.shape[1], k.shape[1], others.get("enable_gqa", False)))
        return real(q, k, v, **others)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    q, k, v = (x.detach().to("meta").transpose(0, 1)[None] for x in _row(shared=2))
    segments = None if prompt else Segments.from_lengths(LENGTHS, "meta")
    module: Any = nn.Module()
    module.num_key_value_groups = 2
    out, _ = attention.language_attention(module, q, k, v, None, segments=segments)
    assert out.shape == (1, 27, 4, 8)
    assert set(seen) == {(4, 4, False)}


def test_prompt_without_padding_equals_its_only_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.LENGTHS", [27])
    row = _row(shared=2)
    out, _ = attention.language_attention(nn.Module(), *(x.transpose(0, 1)[None] for x in row), None)
    torch.testing.assert_close(out[0], _by_segment(*row, causal=True), atol=1e-6, rtol=1e-5)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest result of any operation."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            self.elements = max(self.elements, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return out


@pytest.mark.parametrize("shared", [1, 2])
def test_row_of_4k_tokens_stores_no_scores(shared: int) -> None:
    """N x N scores would be 17 million numbers a head."""
    row = [torch.zeros(4096, heads, 8, requires_grad=True) for heads in (2, 2 // shared, 2 // shared)]
    with Largest() as largest:
        segment_attention(*row, Segments.from_lengths([4096]), causal=True).sum().backward()
    assert largest.elements <= row[0].numel()
