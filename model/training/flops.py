"""Floating point operations of a packed row, counted from the model's own layers, the vision encoder included.

A linear layer costs 2 x in x out per token; attention 4 x L^2 x width per segment of L tokens, causal or not: the
convention of torch.utils.flop_counter, which the tests compare with. Backward, a layer costs as much again for its
input's gradient where something before it learns, and as much for its weight's where it learns itself; attention 2.5
times its forward pass (scores are computed again). What activation checkpointing computes twice is not counted.

    MFU = flops / (seconds x peak): the peak is the device's, dense bf16.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.prompt import IGNORE
from model.videollama3 import VideoLLaMA3

_ATTENTION_BACKWARD = 2.5

PEAKS = {
    # Dense bf16, without sparsity: NVIDIA's data sheets.
    "A100": 312e12,
    "A10G": 70e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}


def peak_flops(device: torch.device) -> float | None:
    """A GPU's dense bf16 peak, operations per second; None for a CPU and what is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def row_flops(model: VideoLLaMA3, row: Mapping[str, Tensor]) -> float:
    """Forward and backward of one packed row; which parts learn is read off the parameters.

    Args:
        row: What `model` is called with, labels included.
    """
    vision = model.vision
    frames = [(int(h * w), int(t)) for t, h, w in row["grid_thw"].tolist()] if "grid_thw" in row else []
    patches = len(row["pixel_values"]) if frames else 0
    kept = int(row["keep_mask"].sum()) if "keep_mask" in row else _merged(row)
    lengths = row["segment_lengths"].tolist()
    tokens, labelled = sum(lengths), int((row["labels"] != IGNORE).sum())
    vision_squares, language_squares = (sum(n * n * count for n, count in frames), sum(n * n for n in lengths))

    language = model.language.config
    heads = language.num_attention_heads
    width = heads * (getattr(language, "head_dim", None) or language.hidden_size // heads)
    counter = _Counter()
    counter.weights([vision.patch_embedding], patches, first=True)
    for block in vision.layers:
        counter.weights(_linears(block), patches)
        counter.attention(vision_squares, vision.config.hidden_size)
    counter.weights(_linears(model.projector), kept)
    for block in model.language.model.layers:
        counter.weights(_linears(block), tokens, anyway=_embeddings_learn(model))
        counter.attention(language_squares, width)
    counter.weights([model.language.lm_head], labelled)
    return counter.flops


class _Counter:
    """Adds up layers in the order of the forward pass, which decides where gradients have to go."""

    def __init__(self) -> None:
        self.flops = 0.0
        self.flows = False  # whether what goes into the next layer depends on something that learns

    def weights(self, layers: Iterable[Any], tokens: int, first: bool = False, anyway: bool = False) -> None:
        self.flows = self.flows or anyway
        inward, layers = self.flows, list(layers)
        for layer in layers:
            once = 2.0 * layer.weight.numel() * tokens
            self.flops += once * (1 + layer.weight.requires_grad + (inward and not first))
        self.flows = self.flows or any(p.requires_grad for layer in layers for p in layer.parameters())

    def attention(self, squares: int, width: int) -> None:
        self.flops += 4.0 * squares * width * (1 + (_ATTENTION_BACKWARD if self.flows else 0))


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _embeddings_learn(model: VideoLLaMA3) -> bool:
    return bool(model.language.get_input_embeddings().weight.requires_grad)


def _merged(row: Mapping[str, Tensor]) -> int:
    if "grid_thw" not in row:
        return 0
    return int((row["grid_thw"].prod(dim=1) // row["merge_sizes"] ** 2).sum())
