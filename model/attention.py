"""Attention within the segments of one packed row: the only attention of this model.

A packed row is a concatenation of segments: images and video frames in the encoder, samples in the language model. A
token attends only to its own segment. A mask over the whole row would need N x N memory: a user of the reference
reported 277 GiB. Here each segment is computed separately, so the cost is the sum of the squared lengths.

    N tokens of the row, S segments, H heads, K key/value heads (K divides H), D width of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import UserError

LANGUAGE_ATTENTION = "vl3syn_segments"
"""Name under which transformers' decoders find `language_attention`."""


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of a packed row, prepared once for all layers.

    On CUDA in half precision, one kernel handles all lengths and needs only `offsets_S1`. Elsewhere, segments of equal
    length are computed as one batch, and `order_N` makes them adjacent.

    Attributes:
        lengths: Tokens of each segment, in row order; all at least 1.
        offsets_S1: Start of each segment, and N at the end; int32 (S + 1,).
        batches: (length, count) of each batch: the length of its segments, and their number.
        order_N: Permutation of tokens that puts segments of equal length together; None if they already are.
        inverse_N: Inverse of `order_N`; None without it.
    """

    lengths: tuple[int, ...]
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
        lengths_S = torch.tensor(lengths, device=device)
        offsets_S1 = F.pad(lengths_S.cumsum(0), (1, 0)).to(torch.int32)
        runs = _runs(lengths)
        if len(runs) == len(set(lengths)):  # each length is in one run only
            return Segments(lengths, offsets_S1, runs, None, None)
        segment_length_N = lengths_S.repeat_interleave(lengths_S)
        order_N = torch.argsort(segment_length_N, stable=True)
        return Segments(lengths, offsets_S1, _runs(sorted(lengths)), order_N, torch.argsort(order_N))


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
    if q_NHD.is_cuda and q_NHD.dtype in (torch.bfloat16, torch.float16):
        return _varlen(q_NHD, k_NKD, v_NKD, segments, causal, scale)
    if segments.order_N is not None:
        q_NHD, k_NKD, v_NKD = (x[segments.order_N] for x in (q_NHD, k_NKD, v_NKD))
    sizes = [length * count for length, count in segments.batches]
    outputs = [
        _equal_lengths(q, k, v, count, causal, scale)
        for (_, count), q, k, v in zip(
            segments.batches, *(torch.split(x, sizes) for x in (q_NHD, k_NKD, v_NKD)), strict=True
        )
    ]
    out_NHD = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out_NHD if segments.inverse_N is None else out_NHD[segments.inverse_N]


def _equal_lengths(q: Tensor, k: Tensor, v: Tensor, count: int, causal: bool, scale: float | None) -> Tensor:
    """Compute the attention of `count` consecutive segments of equal length as one batch."""
    q_BHLD, k_BKLD, v_BKLD = (torch.unflatten(x, 0, (count, -1)).transpose(1, 2) for x in (q, k, v))
    out_BHLD = F.scaled_dot_product_attention(
        q_BHLD, k_BKLD, v_BKLD, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out_BHLD.transpose(1, 2).flatten(0, 1)


def _varlen(q: Tensor, k: Tensor, v: Tensor, segments: Segments, causal: bool, scale: float | None) -> Tensor:
    """Compute attention with torch's kernel for segments of any lengths."""
    from torch.nn.attention.varlen import varlen_attn  # CUDA and half precision only; needs no package besides torch

    offsets, longest = segments.offsets_S1.to(q.device), max(segments.lengths)
    out = varlen_attn(
        q,
        k,
        v,
        offsets,
        offsets,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


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

    In `forward`, a packed row has `segments` and B = 1. In `generate` there are none, and transformers' SDPA is used.

    Raises:
        UserError: `dropout`, which transformers passes in training, is not 0.
    """
    refuse_dropout(dropout, "language model")
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
