"""Attention within the segments of one packed row: the only attention of this model.

A packed row is a concatenation of segments: images and video frames in the encoder, samples in the language model. A
token attends only to its own segment. A mask over the whole row would need N x N memory: a user of the reference
reported 277 GiB. Here each segment is computed separately, so the cost is the sum of the squared lengths.

    N tokens of the row, S segments, H heads, K key/value heads (K divides H), D width of a head
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import varlen

from core.errors import UserError

LANGUAGE_ATTENTION = "vl3syn_segments"
"""Name under which transformers' decoders find `language_attention`."""


HALF = (torch.bfloat16, torch.float16)

KERNEL_WIDTHS = range(8, 257, 8)
"""Widths of a head that flash attention takes, from `mha_varlen_fwd` in torch's flash_api.cpp. SDPA pads the others."""

WHOLE = 1 << 30
"""A window that is wider than any segment, see `_varlen`."""

KERNEL_SHARES_HEADS = "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters
"""Whether torch's kernel takes fewer key and value heads than query heads: since PyTorch 2.12 it does."""


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of a packed row, prepared once for all layers, on the host.

    On CUDA in half precision, one kernel handles all lengths and needs only `offsets_S1` and `longest`. Elsewhere,
    segments of equal length are computed as one batch, and `order_N` makes them adjacent.

    Attributes:
        lengths: Tokens of each segment, in row order; all at least 1.
        longest: The largest of them.
        offsets_S1: Start of each segment, and N at the end; int32 (S + 1,).
        batches: (length, count) of each batch: the length of its segments, and their number.
        order_N: Permutation of tokens that puts segments of equal length together; None if they already are.
        inverse_N: Inverse of `order_N`; None without it.
    """

    lengths: tuple[int, ...]
    longest: int
    offsets_S1: Tensor
    batches: tuple[tuple[int, int], ...]
    order_N: Tensor | None
    inverse_N: Tensor | None

    @staticmethod
    def from_lengths(lengths: Sequence[int], device: torch.device | str = "cpu") -> Segments:
        """Prepare a row whose segments have these lengths.

        Raises:
            ValueError: A segment is empty.
        """
        lengths = tuple(lengths)
        if not lengths or min(lengths) < 1:
            raise ValueError(f"segments must have at least one token each, got lengths {lengths}: leave out empty ones")
        offsets = list(accumulate(lengths, initial=0))
        batches, order_N, inverse_N = _runs(lengths), None, None
        if len(batches) > len(set(lengths)):  # a length is in several runs
            numbers = sorted(range(len(lengths)), key=lengths.__getitem__)
            batches = _runs([lengths[number] for number in numbers])
            order_N = torch.cat([torch.arange(offsets[number], offsets[number + 1]) for number in numbers])
            inverse_N = torch.empty_like(order_N)
            inverse_N[order_N] = torch.arange(len(order_N))
        offsets_S1 = torch.tensor(offsets, dtype=torch.int32)
        return Segments(lengths, max(lengths), offsets_S1, batches, order_N, inverse_N).to(device)

    def to(self, device: torch.device | str) -> Segments:
        """Return the segments on a device, without waiting for it."""
        order_N, inverse_N = (None if x is None else to_device(x, device) for x in (self.order_N, self.inverse_N))
        offsets_S1 = to_device(self.offsets_S1, device)
        return replace(self, offsets_S1=offsets_S1, order_N=order_N, inverse_N=inverse_N)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device. From the host, the copy is queued behind the device's work, and not waited for."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # a copy from other memory would be waited for
    return tensor.to(device, non_blocking=True)


def _runs(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (length, count) of each run of equal lengths."""
    return tuple((length, sum(1 for _ in run)) for length, run in groupby(lengths))


def segment_attention(
    q_NHD: Tensor,
    k_NKD: Tensor,
    v_NKD: Tensor,
    segments: Segments,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Compute softmax(q k' * scale) v within each segment.

    Args:
        q_NHD: Queries (N, H, D).
        k_NKD: Keys (N, K, D); K divides H.
        v_NKD: Values (N, K, D).
        segments: Segments of the row; their lengths sum to N.
        causal: Whether a token attends only to itself and earlier tokens of its segment.
        scale: Default: 1 / sqrt(D).

    Returns:
        (N, H, D).
    """
    # Rotated queries and keys are float32 under autocast, and values are not.
    q_NHD, k_NKD = q_NHD.to(v_NKD.dtype), k_NKD.to(v_NKD.dtype)
    if takes_varlen(v_NKD.device.type, v_NKD.dtype) and v_NKD.shape[-1] in KERNEL_WIDTHS:
        return _varlen(q_NHD, k_NKD, v_NKD, segments, causal, scale)
    if torch.compiler.is_compiling():
        out: Tensor = _grouped_compiled(q_NHD, k_NKD, v_NKD, segments.offsets_S1, causal, scale)
        return out
    return _grouped(q_NHD, k_NKD, v_NKD, segments, causal, scale)


def takes_varlen(device: str, dtype: torch.dtype) -> bool:
    """Whether torch has a kernel for segments of any lengths for this type of device and of numbers."""
    return device == "cuda" and dtype in HALF


def _varlen(q: Tensor, k: Tensor, v: Tensor, segments: Segments, causal: bool, scale: float | None) -> Tensor:
    """Compute attention with torch's kernel for segments of any lengths, always flash attention.

    Without a window, PyTorch 2.12 to 2.14 choose cuDNN on H100 and B200 if heads are not shared (`_can_use_cudnn` in
    torch/nn/attention/varlen.py): in the encoder, whose heads are 72 wide. cuDNN's gradients were wrong before 2.14,
    and it plans each new number of tokens again, some 40 ms. With any window PyTorch takes flash attention, which
    treats one that is wider than the longest segment as none (`mha_varlen_fwd` and `mha_varlen_bwd` in its
    flash_api.cpp). PyTorch 2.11 has flash attention only. Later than 2.14, `sdpa_kernel` decides as well.
    """
    shared = q.shape[1] != k.shape[1]
    if shared and not KERNEL_SHARES_HEADS:
        k, v = _repeat_heads(q, k, 1), _repeat_heads(q, v, 1)
    sharing: Any = {"enable_gqa": shared} if KERNEL_SHARES_HEADS else {}
    out = varlen.varlen_attn(
        q,
        k,
        v,
        segments.offsets_S1,
        segments.offsets_S1,
        segments.longest,
        segments.longest,
        scale=scale,
        window_size=(-1, 0) if causal else (WHOLE, WHOLE),
        **sharing,
    )
    assert isinstance(out, Tensor)
    return out


def _grouped(q: Tensor, k: Tensor, v: Tensor, segments: Segments, causal: bool, scale: float | None) -> Tensor:
    """Compute attention with one call of SDPA per length."""
    if segments.order_N is not None:
        q, k, v = (x[segments.order_N] for x in (q, k, v))
    sizes = [length * count for length, count in segments.batches]
    outputs = []
    for (_, count), *parts in zip(segments.batches, *(torch.split(x, sizes) for x in (q, k, v)), strict=True):
        q_BHLD, k_BKLD, v_BKLD = (torch.unflatten(x, 0, (count, -1)).transpose(1, 2) for x in parts)
        outputs.append(_sdpa(q_BHLD, k_BKLD, v_BKLD, causal, scale).transpose(1, 2).flatten(0, 1))
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out if segments.inverse_N is None else out[segments.inverse_N]


def _sdpa(q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, causal: bool, scale: float | None) -> Tensor:
    """Compute attention without a mask, and without L x L memory.

    On CUDA no kernel for float32 has shared heads: PyTorch would fall back to the plain formula, which stores the
    scores of all pairs. So key and value heads are repeated there.
    """
    shared = q_BHLD.shape[1] != k_BKLD.shape[1]
    if shared and q_BHLD.device.type != "cpu" and q_BHLD.dtype not in HALF:
        k_BKLD, v_BKLD = _repeat_heads(q_BHLD, k_BKLD, 1), _repeat_heads(q_BHLD, v_BKLD, 1)
        shared = False
    return F.scaled_dot_product_attention(q_BHLD, k_BKLD, v_BKLD, is_causal=causal, scale=scale, enable_gqa=shared)


def _repeat_heads(q: Tensor, x: Tensor, dim: int) -> Tensor:
    """Repeat key or value heads so that there is one per query head."""
    return x.repeat_interleave(q.shape[dim] // x.shape[dim], dim)


@torch.library.custom_op("vl3syn::segment_attention", mutates_args=())
def _grouped_compiled(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, causal: bool, scale: float | None) -> Tensor:
    """Compute `_grouped` as one node of a compiled graph: else each number of segments would be compiled anew."""
    return _grouped(q, k, v, _segments_at(offsets), causal, scale)


@torch.library.custom_op("vl3syn::segment_attention_backward", mutates_args=())
def _grouped_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    segments = _segments_at(offsets)
    # Autograd is off inside of an operator; `torch.func` is not.
    result: Any = torch.func.vjp(lambda q, k, v: _grouped(q, k, v, segments, causal, scale), q, k, v)
    grad_q, grad_k, grad_v = result[1](grad)
    return grad_q, grad_k, grad_v


def _segments_at(offsets: Tensor) -> Segments:
    return Segments.from_lengths(offsets.diff().tolist(), offsets.device)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_grouped_backward(grad, *ctx.saved_tensors, ctx.causal, ctx.scale), None, None, None)


_grouped_compiled.register_fake(lambda q, k, v, *others: torch.empty_like(q))
_grouped_backward.register_fake(lambda grad, q, k, v, *others: tuple(torch.empty_like(x) for x in (q, k, v)))
_grouped_compiled.register_autograd(_backward, setup_context=_save_inputs)


def language_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention for transformers' decoders: query (B, H, N, D), key and value (B, K, M, D).

    In `forward`, a packed row has `segments` and B = 1. In `generate` there are none: prompts without padding are
    computed here, all else by transformers' SDPA, which repeats the heads if there is a mask.

    Raises:
        UserError: `dropout`, which transformers passes in training, is not 0.
    """
    refuse_dropout(dropout, "language model")
    if segments is None and attention_mask is None and query.shape[2] == key.shape[2]:
        return _sdpa(query, key, value, True, scaling).transpose(1, 2), None
    if segments is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
        return out, None
    q_NHD, k_NKD, v_NKD = (x[0].transpose(0, 1) for x in (query, key, value))
    return segment_attention(q_NHD, k_NKD, v_NKD, segments, causal=True, scale=scaling)[None], None


def refuse_dropout(dropout: float, part: str) -> None:
    """Check that a model's training does without attention dropout, which no kernel for segments has.

    Raises:
        UserError: `dropout` is not 0.
    """
    if dropout:
        raise UserError(
            f"attention_dropout {dropout:g} of the {part}: attention here has none: set it to 0 in config.json to train"
        )


def language_mask(
    *, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **others: Any
) -> Tensor | None:
    """Return the mask for `language_attention`: None without padding and KV cache, else SDPA's mask."""
    if attention_mask is None and q_length == kv_length:
        return None  # the causal flag is enough
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **others)


def register_language_attention() -> None:
    """Register attention and mask with transformers. Repeated calls do no harm."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(LANGUAGE_ATTENTION, language_attention)
    AttentionMaskInterface.register(LANGUAGE_ATTENTION, language_mask)
