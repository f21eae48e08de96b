from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model import loss
from model.loss import summed_loss

WIDTH, WORDS, TOKENS = 24, 500, 64


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, WORDS, bias=False)


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def targets() -> Tensor:
    return torch.randint(WORDS, (TOKENS,), generator=torch.Generator().manual_seed(2))


def _textbook(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    logits = (hidden @ head.weight.t()).double()
    return (logits.logsumexp(1) - logits[range(len(targets)), targets]).sum()


def _gradients(
    of: Callable[..., Tensor], hidden: Tensor, head: nn.Linear, targets: Tensor, divisor: float = 7.0
) -> tuple[Tensor, Tensor, Tensor]:
    hidden = hidden.clone().requires_grad_()
    head.zero_grad()
    total = of(hidden, head, targets)
    (total / divisor).backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    return total.detach(), hidden.grad, head.weight.grad.clone()


@pytest.mark.parametrize("tokens_at_once", [1, 7, 32, 63])
def test_chunks_have_the_loss_and_gradients_of_the_formula(
    head: nn.Linear, hidden: Tensor, targets: Tensor, tokens_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", tokens_at_once * WORDS)
    ours = _gradients(summed_loss, hidden, head, targets)
    theirs = _gradients(_textbook, hidden, head, targets)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b.double(), atol=1e-6, rtol=1e-6)


def test_few_tokens_are_bit_equal_to_cross_entropy(head: nn.Linear, hidden: Tensor, targets: Tensor) -> None:
    def plain(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(hidden).float(), targets, reduction="sum")

    pairs = zip(*(_gradients(of, hidden, head, targets) for of in (summed_loss, plain)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_chunks_under_autocast_equal_cross_entropy_under_it(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        whole = _gradients(summed_loss, hidden, head, targets)
        monkeypatch.setattr(loss, "CHUNK", 8 * WORDS)
        chunks = _gradients(summed_loss, hidden, head, targets)
    exact = _gradients(_textbook, hidden, head, targets)
    for a, b, truth in zip(whole, chunks, exact, strict=True):
        assert b.dtype == torch.float32
        assert (b - truth).norm() <= 1.001 * (a - truth).norm()


def test_bfloat16_weights_have_gradients_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 tokens of the same word, one at a time: summed in bfloat16, the gradient would stop growing at 256."""
    monkeypatch.setattr(loss, "CHUNK", 2)
    head = nn.Linear(1, 2, bias=False).bfloat16()
    nn.init.zeros_(head.weight)
    summed_loss(torch.ones(512, 1).bfloat16(), head, torch.zeros(512, dtype=torch.long)).backward()
    assert head.weight.grad is not None
    assert head.weight.grad.flatten().tolist() == [-256, 256]


def test_frozen_head_gets_no_gradient(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _gradients(_textbook, hidden, head, targets)
    monkeypatch.setattr(loss, "CHUNK", 8 * WORDS)
    head.zero_grad()
    head.requires_grad_(False)
    hidden.requires_grad_()
    (summed_loss(hidden, head, targets) / 7).backward()
    assert head.weight.grad is None
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, expected[1], atol=1e-6, rtol=1e-6)


def test_loss_without_gradients_is_the_same(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", 8 * WORDS)
    with torch.no_grad():
        total = summed_loss(hidden, head, targets)
    torch.testing.assert_close(total.double(), _textbook(hidden, head, targets), atol=1e-6, rtol=1e-6)


def test_loss_without_gradients_computes_none(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", 8 * WORDS)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        summed_loss(hidden.bfloat16(), head.bfloat16(), targets)  # the counter passes over float32's addmm_
    assert counted.get_total_flops() == 2 * TOKENS * WIDTH * WORDS


def test_head_with_an_adapter_uses_it(
    head: nn.Linear, hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.ModuleDict({"head": head})
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["head"], init_lora_weights=False), model)
    expected = F.cross_entropy(model["head"](hidden), targets, reduction="sum")
    monkeypatch.setattr(loss, "CHUNK", 8 * WORDS)
    torch.testing.assert_close(summed_loss(hidden, model["head"], targets), expected)


def test_head_with_a_bias_takes_all_tokens_at_once(
    hidden: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", 8 * WORDS)
    head = nn.Linear(WIDTH, WORDS)
    expected = F.cross_entropy(head(hidden), targets, reduction="sum")
    torch.testing.assert_close(summed_loss(hidden, head, targets), expected)


class Memory(TorchDispatchMode):
    """Notes the size in bytes of the largest result of any operation, in and out of the backward pass."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return out


def test_no_tensor_is_larger_than_a_chunk_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/loss_memory.py measures a whole row of the 2b."""
    assert 4 * loss.CHUNK <= 400_000_000
    monkeypatch.setattr(loss, "CHUNK", 100_000)
    head, hidden = nn.Linear(8, 5000, bias=False), torch.zeros(1000, 8, requires_grad=True)
    with Memory() as memory:
        summed_loss(hidden, head, torch.zeros(1000, dtype=torch.long)).backward()
    assert memory.largest == 4 * 100_000
