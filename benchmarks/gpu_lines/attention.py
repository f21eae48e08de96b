"""Attention within segments: which kernel runs, whether its numbers are right, its time and its memory."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gpu_lines import measures
from gpu_lines.measures import build, finished, kernels, lengths_of, listed, off, peak_gib, sample, seconds
from gpu_lines.proof import Figure, Place
from model.attention import Segments, segment_attention

ENCODER, LANGUAGE = (16, 16, 72), (12, 2, 128)
"""Heads of queries, heads of keys and values, and a head's width, in SigLIP so400m and in Qwen2.5-1.5B."""

UNEVEN = (8, 8, 8, 5, 3, 3, 1, 12, 2, 6, 4, 0.1)
"""Proportions of the segments of a row."""


def varlen(place: Place) -> Iterator[Figure]:
    """Rows of 16,384 tokens in twelve uneven segments: values and gradients against float32, time against SDPA."""
    lengths = lengths_of(place, 16384, UNEVEN)
    for name, shape, causal in (("encoder", ENCODER, False), ("language", LANGUAGE, True)):
        row = _row(place, sum(lengths), shape, torch.bfloat16)
        segments = Segments.from_lengths(lengths, place.device)

        def ours(row: list[Tensor] = row, segments: Segments = segments, causal: bool = causal) -> list[Tensor]:
            return _with_gradients(lambda q, k, v: segment_attention(q, k, v, segments, causal=causal), row)

        def one_by_one(row: list[Tensor] = row, causal: bool = causal) -> list[Tensor]:
            return _with_gradients(lambda q, k, v: _sdpa(q, k, v, lengths, causal), row)

        wide = [x.detach().float().requires_grad_() for x in row]
        truth = _with_gradients(lambda q, k, v, causal=causal: _sdpa(q, k, v, lengths, causal), wide)
        values, theirs = ours(), one_by_one()
        limits = [2 * off(x, exact) + 2e-3 for x, exact in zip(theirs, truth, strict=True)]
        for what, value, exact, limit in zip(("output", "dq", "dk", "dv"), values, truth, limits, strict=True):
            yield Figure(f"{name}: {what}, off float32 by", off(value, exact), most=limit)
        counts = kernels(ours)
        yield Figure(f"{name}: kernel", listed(counts))
        ours_s, theirs_s = seconds(place, ours), seconds(place, one_by_one)
        yield Figure(f"{name}: forward and backward", 1000 * ours_s, "ms")
        yield Figure(f"{name}: the same, SDPA segment by segment", 1000 * theirs_s, "ms")
        ratio = ours_s / theirs_s if place.cuda else None
        yield Figure(f"{name}: ratio", ratio, most=1.5)


def autocast(place: Place) -> Iterator[Figure]:
    """A forward pass as training runs it on one GPU: float32 weights under autocast."""
    layers = place.size(4, 2)
    model = build(place, measures.config(place, layers=layers, vocabulary=4096)).train()
    row = sample(place).to(place.device)
    with torch.autocast(place.device, torch.bfloat16):
        counts = kernels(lambda: model(**row))
    yield Figure("kernels of a forward pass", listed(counts))
    varlen_calls = counts["flash"] + counts["cuDNN"] if place.cuda else None
    yield Figure("calls of a varlen kernel", varlen_calls, least=2 * layers)
    yield Figure("calls of cuDNN", counts["cuDNN"], most=0)


def new_shapes(place: Place) -> Iterator[Figure]:
    """What the first call with a row of a new length costs beyond the second."""
    dice = random.Random(0)
    for name, shape, causal in (("encoder", ENCODER, False), ("language", LANGUAGE, True)):
        extra = []
        for number in range(place.size(24, 4)):
            lengths = lengths_of(place, 8192, [dice.uniform(1, 4) for _ in range(6)])
            lengths[0] += number + 1
            row = _row(place, sum(lengths), shape, torch.bfloat16)
            segments = Segments.from_lengths(lengths, place.device)
            taken = []
            for _ in range(2):
                finished(place)
                begin = time.perf_counter()
                _with_gradients(
                    lambda q, k, v, s=segments, causal=causal: segment_attention(q, k, v, s, causal=causal), row
                )
                finished(place)
                taken.append(time.perf_counter() - begin)
            extra.append(1000 * (taken[0] - taken[1]))
        median = statistics.median(extra[1:]) if place.cuda else None  # the very first call loads the kernel
        yield Figure(f"{name}: a new shape costs", median, "ms", most=5)


def float32(place: Place) -> Iterator[Figure]:
    """One sample of 16,384 tokens in float32 with shared keys, as `eval` runs it on weights saved in float32."""
    tokens = place.size(16384, 256)
    row = _row(place, tokens, LANGUAGE, torch.float32)
    segments = Segments.from_lengths([tokens], place.device)

    def forward() -> Tensor:
        with torch.no_grad():
            return segment_attention(*row, segments, causal=True)

    yield Figure("kernel", listed(kernels(forward)))
    yield Figure("peak of a forward pass", peak_gib(place, forward), "GiB", most=2)
    heads = row[0].shape[1]
    gradients = peak_gib(
        place, lambda: _with_gradients(lambda q, k, v: segment_attention(q, k, v, segments, True), row)
    )
    yield Figure("peak with gradients", gradients, "GiB", most=4)
    yield Figure("a matrix of all scores would be", heads * tokens**2 * 4 / 2**30, "GiB")
    yield Figure("forward pass", 1000 * seconds(place, forward), "ms")
    chosen = torch.tensor([0, 1, tokens // 2, tokens - 1], device=place.device)
    yield Figure("off the formula in float64 by", off(forward()[chosen], _formula(*row, chosen)), most=1e-5)


def _row(place: Place, tokens: int, shape: tuple[int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """Return random queries, keys and values."""
    heads, shared, width = shape
    generator = torch.Generator(place.device).manual_seed(0)
    return [
        torch.randn(tokens, count, width, generator=generator, device=place.device).to(dtype).requires_grad_()
        for count in (heads, shared, shared)
    ]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], causal: bool) -> Tensor:
    """Return the attention of each segment alone, by torch's function, with keys and values repeated for each head."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    parts = zip(*(x.transpose(0, 1)[None].split(list(lengths), 2) for x in (q, k, v)), strict=True)
    outputs = [scaled_dot_product_attention(*part, is_causal=causal) for part in parts]
    return torch.cat(outputs, 2)[0].transpose(0, 1)


def _formula(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor) -> Tensor:
    """Return causal attention at some tokens of one segment, written out."""
    heads = q.shape[1] // k.shape[1]
    q, k, v = q.detach()[chosen].double(), k.detach().double(), v.detach().double()
    k, v = k.repeat_interleave(heads, 1), v.repeat_interleave(heads, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    later = torch.arange(len(k), device=chosen.device) > chosen[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(later, -torch.inf).softmax(-1), v)


def _with_gradients(attend: Callable[..., Tensor], row: Sequence[Tensor]) -> list[Tensor]:
    """Return the output, and the gradients of queries, keys and values for a fixed direction."""
    out = attend(*row)
    direction = torch.linspace(-1, 1, out.shape[-1], device=out.device, dtype=out.dtype).expand_as(out)
    return [out.detach(), *torch.autograd.grad(out, list(row), direction)]
