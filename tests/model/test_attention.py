from __future__ import annotations

from typing import Any

import pytest
import torch

from model import attention
from model.attention import Segments, segment_attention

LENGTHS = [3, 5, 3, 1, 5, 7, 3]


def _row(heads: int = 4, shared: int = 1, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [heads, heads // shared, heads // shared]
    return [torch.randn(sum(LENGTHS), h, 8, generator=generator).to(dtype).requires_grad_() for h in shapes]


def _masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """The textbook: one N x N mask."""
    number = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    mask = number[:, None] == number[None]
    if causal:
        mask = mask.tril()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hnm,mhd->nhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


_grad = torch.autograd.grad


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_packed_attention_equals_masked_attention_with_gradients(causal: bool, shared: int) -> None:
    row = _row(shared=shared)
    ours = segment_attention(*row, Segments.from_lengths(LENGTHS), causal=causal)
    theirs = _masked(*row, causal)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    weight = torch.randn_like(ours)
    for a, b in zip(_grad((ours * weight).sum(), row), _grad((theirs * weight).sum(), row), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_segments_of_equal_length_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q: torch.Tensor, *rest: Any, **others: Any) -> torch.Tensor:
        seen.append(tuple(q.shape))
        return real(q, *rest, **others)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spy)
    segment_attention(*_row(), Segments.from_lengths(LENGTHS))
    assert sorted(seen) == [(1, 4, 1, 8), (1, 4, 7, 8), (2, 4, 5, 8), (3, 4, 3, 8)]


def test_neighbours_of_equal_length_are_not_moved() -> None:
    assert Segments.from_lengths([4, 4, 2, 2, 9]).order_N is None
    assert Segments.from_lengths([4, 2, 4]).order_N is not None


def test_empty_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="leave out empty ones"):
        Segments.from_lengths([3, 0])


def test_kernel_gets_offsets_longest_segment_and_window(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}

    def kernel(q: Any, k: Any, v: Any, starts: Any, starts_k: Any, longest: int, longest_k: int, **others: Any) -> Any:
        arguments.update(others, starts=starts.tolist(), dtype=starts.dtype, longest=longest)
        return q

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(attention, "KERNEL_SHARES_HEADS", True)
    for causal, window in ((True, (-1, 0)), (False, (1 << 30, 1 << 30))):
        attention._varlen(*_row(shared=2), Segments.from_lengths(LENGTHS), causal, 0.5)
        assert arguments == {
            "starts": [0, 3, 8, 11, 12, 17, 24, 27],
            "dtype": torch.int32,
            "longest": 7,
            "scale": 0.5,
            "window_size": window,
            "enable_gqa": True,
        }


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shared", [1, 2])
def test_kernel_equals_masked_attention_on_cuda(causal: bool, shared: int) -> None:
    row = [x.detach().cuda().bfloat16().requires_grad_() for x in _row(shared=shared)]
    ours = segment_attention(*row, Segments.from_lengths(LENGTHS, "cuda"), causal=causal)
    theirs = _masked(*[x.cpu().float() for x in row], causal)
    torch.testing.assert_close(ours.cpu().float(), theirs, atol=2e-2, rtol=2e-2)
    for a, b in zip(_grad(ours.float().sum(), row), _grad(theirs.sum(), row), strict=True):
        torch.testing.assert_close(a, b, atol=3e-2, rtol=3e-2)
