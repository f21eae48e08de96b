"""The loss of many tokens over a large vocabulary, without the logits of all of them at once.

Logits, their float32 copy and their gradients are 1.8 MB a token for 151,936 words: 30 GB for 16,384 tokens.

    L learned tokens, W width of the language model, V vocabulary size
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = 100_000_000
"""Maximum logits that exist at once: 0.4 GB in float32, of 658 tokens with a vocabulary of 151,936."""


def summed_loss(hidden_LW: Tensor, head: nn.Linear, targets_L: Tensor) -> Tensor:
    """Return the cross entropy in nats, summed over tokens.

    Few tokens go through the head at once. Many are taken chunk by chunk: each chunk's gradients are computed along
    with its loss, and its logits are freed. PyTorch's own `linear_cross_entropy` does the same since 2.14, but sums a
    bfloat16 weight's gradients in bfloat16, chunk after chunk. Here they are summed in float32.

    Args:
        hidden_LW: The language model's output before each learned token.
        head: The layer that makes logits. One with a bias or an adapter takes all tokens at once.
        targets_L: The learned tokens.
    """
    plain = type(head) is nn.Linear and head.bias is None  # one with an adapter is more than its weight
    if len(targets_L) * head.out_features <= CHUNK or not plain:
        return F.cross_entropy(head(hidden_LW).float(), targets_L, reduction="sum")
    # A function of autograd does not see that gradients are off: it would compute those of the weight.
    weight_VW = head.weight if torch.is_grad_enabled() else head.weight.detach()
    total: Tensor = _ChunkedLoss.apply(hidden_LW, weight_VW, targets_L)
    return total


class _ChunkedLoss(torch.autograd.Function):
    """The gradients are computed in the forward pass, so the backward pass only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden_LW: Tensor, weight_VW: Tensor, targets_L: Tensor) -> Tensor:
        dtype = _compute_dtype(hidden_LW, weight_VW)
        with torch.autocast(hidden_LW.device.type, enabled=False):
            head_VW, total = weight_VW.to(dtype), hidden_LW.new_zeros((), dtype=torch.float32)
            grad_hidden = torch.empty_like(hidden_LW) if ctx.needs_input_grad[0] else None
            grad_weight = torch.zeros_like(weight_VW, dtype=torch.float32) if ctx.needs_input_grad[1] else None
            size = max(CHUNK // len(weight_VW), 1)
            for start in range(0, len(targets_L), size):
                hidden, targets = hidden_LW[start : start + size].to(dtype), targets_L[start : start + size, None]
                probabilities, loss = _softmax_and_loss(F.linear(hidden, head_VW), targets)
                total += loss
                if grad_hidden is None and grad_weight is None:
                    continue
                # The gradient of a token's logits is its probabilities, minus 1 at the token itself.
                minus_one = probabilities.new_full((1, 1), -1.0).expand_as(targets)
                grad_logits = probabilities.scatter_add_(1, targets, minus_one).to(dtype)
                if grad_hidden is not None:
                    grad_hidden[start : start + size] = grad_logits @ head_VW
                if grad_weight is not None:
                    _add_product(grad_weight, grad_logits.t(), hidden)
                del probabilities, grad_logits  # before the next chunk's logits
            ctx.grads, ctx.weight_dtype = (grad_hidden, grad_weight), weight_VW.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (grad_hidden, grad_weight) = grads, ctx.grads
        del ctx.grads  # they are scaled in place, so this works once
        if grad_hidden is not None:
            grad_hidden *= grad
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(grad).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Return the type in which a linear layer computes: autocast's if it is on."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _softmax_and_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and the summed loss, both float32, in the memory of one float32 copy of the logits."""
    logits = logits.float()
    logits -= logits.amax(1, keepdim=True)
    chosen = logits.gather(1, targets)
    exponentials = logits.exp_()
    sums = exponentials.sum(1, keepdim=True)
    return exponentials.div_(sums), (sums.log() - chosen).sum()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to a float32 total."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
