"""FLOPs of a packed row, computed from the model's layers, including the vision encoder.

A linear layer costs 2 x in x out per token. Its backward pass costs the same again for the input's gradient, if an
earlier layer learns, and the same for the weight's gradient, if the layer itself learns. Attention costs 4 x L^2 x
width per segment of L tokens; its backward pass costs twice that, if an earlier layer learns. The tests compare with
`torch.utils.flop_counter` and SDPA's math backend, which count the same. Three things to know about that:

- A causal segment counts as a full one: the counter knows shapes only, and the literature does the same. Kernels that
  skip masked scores get a higher MFU.
- Fused kernels recompute the scores in the backward pass, and the counter counts 2.5 times instead of twice. Here
  neither that nor recomputation by activation checkpointing counts: MFU measures what the model needs.
- On a CPU the counter does not see SDPA's fused kernel at all.

Norms, rotations, softmax and loss count as 0 in both. Experts that are not `nn.Linear` are not counted.

    MFU = flops / (seconds x peak), with the device's dense bf16 peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model.packed_row import PackedRow
from model.videollama3 import VideoLLaMA3
from model.vision import VisionEncoder

_ATTENTION_BACKWARD = 2
_LAST = ("out_proj", "o_proj", "fc2", "down_proj")
"""Last projections of a block's attention and MLP; their input is computed from the outputs of the other ones."""

PEAKS = {
    # Dense bf16, without sparsity: NVIDIA's data sheets.
    "A100": 312e12,
    "A10G": 70e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Return a GPU's dense bf16 peak in FLOP/s; None for a CPU or a GPU that is not in `PEAKS`."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = max((each for each in PEAKS if each in name), key=len, default=None)  # L40S contains L4
    return PEAKS[known] if known else None


@dataclass(frozen=True)
class RowSizes:
    """What the FLOPs of packed rows depend on. FLOPs are linear in it: sums over rows give the sum of their FLOPs.

    Attributes:
        patches: Number of patches.
        vision: Number of visual tokens that are kept.
        tokens: Number of tokens, placeholders included.
        learned: Number of learned tokens.
        vision_squares: Sum over frames of their patches, squared.
        language_squares: Sum over samples of their tokens, squared.
    """

    patches: float
    vision: float
    tokens: float
    learned: float
    vision_squares: float
    language_squares: float

    @classmethod
    def of(cls, row: PackedRow) -> RowSizes:
        """Return the sizes of a row with labels."""
        return cls(
            patches=len(row.pixel_values),
            vision=int(row.keep_mask.sum()),
            tokens=len(row.input_ids),
            learned=row.label_count,
            vision_squares=sum(t * (h * w) ** 2 for t, h, w in row.grid_thw.tolist()),
            language_squares=int((row.segment_lengths**2).sum()),
        )


def row_flops(model: VideoLLaMA3, row: PackedRow) -> float:
    """Return the FLOPs of the forward and backward pass of one packed row, which has labels."""
    return flops(model, RowSizes.of(row))


def flops(model: VideoLLaMA3, sizes: RowSizes) -> float:
    """Return the FLOPs of the forward and backward pass of rows.

    Args:
        model: Its parameters' `requires_grad` says which parts learn. It may be on the `meta` device.
        sizes: The sizes of one row, or the sums over several.
    """
    vision, language = model.vision, model.language.config
    heads = language.num_attention_heads
    width = heads * (getattr(language, "head_dim", None) or language.hidden_size // heads)
    counter = _Counter()
    counter.flops += _patch_embedding(vision, sizes.patches)
    counter.learns(vision.patch_embedding)
    for block in vision.layers:
        counter.block(block, sizes.patches, sizes.vision_squares, vision.config.hidden_size)
    counter.learns(vision.post_layernorm)
    counter.parallel([model.projector], sizes.vision)
    counter.learns(model.language.get_input_embeddings())
    for block in model.language.model.layers:
        counter.block(block, sizes.tokens, sizes.language_squares, width)
    for name, part in model.language.model.named_children():
        if name != "layers":
            counter.learns(part)
    counter.parallel([model.language.lm_head], sizes.learned)
    return counter.flops


class _Counter:
    """Adds up the FLOPs of layers in forward order, which decides where gradients flow.

    Attributes:
        flops: FLOPs so far.
        flows: Whether the next layer's input depends on a parameter that learns.
    """

    def __init__(self) -> None:
        self.flops, self.flows = 0.0, False

    def learns(self, module: nn.Module) -> None:
        """Note whether a module learns, without counting its operations: norms, embeddings."""
        self.flows = self.flows or _learns(module)

    def parallel(self, modules: Sequence[nn.Module], tokens: float) -> None:
        """Count modules that share one input. The linear layers of each form a chain, such as an adapter's two."""
        for module in modules:
            flows = self.flows
            for layer in _linears(module):
                self.flops += 2.0 * layer.weight.numel() * tokens * (1 + layer.weight.requires_grad + flows)
                flows = flows or _learns(layer)
        for module in modules:
            self.learns(module)

    def block(self, block: nn.Module, tokens: float, squares: float, width: int) -> None:
        """Count a transformer block: norm, attention, norm, MLP."""
        attention = block.get_submodule("self_attn")
        norms = [part for part in block.children() if not _linears(part)]
        for norm in norms[:1]:
            self.learns(norm)
        inside, last = _projections(attention)
        self.parallel(inside, tokens)
        for norm in attention.children():  # of queries and keys, if any
            if not _linears(norm):
                self.learns(norm)
        self.flops += 4.0 * squares * width * (1 + (_ATTENTION_BACKWARD if self.flows else 0))
        self.parallel(last, tokens)
        for norm in norms[1:]:
            self.learns(norm)
        for mlp in block.children():
            if mlp is not attention:
                for part in _projections(mlp):
                    self.parallel(part, tokens)


def _projections(module: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the children that read the module's input, and those that read the outputs of the former."""
    parts = {name: part for name, part in module.named_children() if _linears(part)}
    last = [part for name, part in parts.items() if name in _LAST]
    return [part for name, part in parts.items() if name not in _LAST], last


def _patch_embedding(vision: VisionEncoder, patches: float) -> float:
    """Return the FLOPs of the patch embedding, run as a linear layer; pixels need no gradient."""
    weight = vision.patch_embedding.weight
    return 2.0 * weight.numel() * patches * (1 + weight.requires_grad)


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
