"""The vision encoder: SigLIP's transformer with 2D rotary positions, for images of any size (arXiv 2501.13106, 2.1).

One packed row holds the patches of all images and of all frames of all videos. A patch attends only to patches of its
own image or frame. After the last LayerNorm, each m x m block of patches is averaged into one merged token.

    P patches of the row, I images and videos, M merged tokens, C width, H heads, D width of a head
    grid_thw_I3: frames, rows and columns of patches (t, h, w), per image (t = 1) or video
    F = D/4 rotary frequencies, A = D/2 rotary angles of a head
    Order of patches: frame by frame, in a frame block by block, in a block row by row: (t, h/m, w/m, m, m).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import Segments, refuse_dropout, segment_attention, to_device
from model.config import VisionConfig
from model.images import normalise

PORTION = 8192
"""Maximum patches that are encoded together when gradients are off: this bounds the memory of long videos."""

CPU_PORTION = 1024
"""The same on a CPU: about what its caches hold."""

Grids = list[tuple[int, int, int]]
"""Frames, rows and columns of patches (t, h, w), per image or video."""

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary angles, see `rotary`."""


class VisionEncoder(nn.Module):
    """Encodes patches into merged tokens.

    Attributes:
        checkpointing: Whether to recompute each block's activations in the backward pass instead of keeping them.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        side = config.patch_size
        # A convolution for SigLIP's weight shapes. The patches are cut already, so it is applied as a linear layer.
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, side, side)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the reference does: Xavier in the blocks, LeCun for the patches, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.patch_embedding.weight, std=self.config.patch_dim**-0.5)
        assert self.patch_embedding.bias is not None
        nn.init.zeros_(self.patch_embedding.bias)

    def forward(self, pixels_PX: Tensor, grid_thw_I3: Tensor | Grids, merge_sizes_I: Tensor | list[int]) -> Tensor:
        """Encode a packed row.

        Args:
            pixels_PX: Patches (P, channels * side * side), channel first: uint8, or normalised to -1 to 1.
            grid_thw_I3: Frames, rows and columns of patches, integers (I, 3). Tensors should be on the host.
            merge_sizes_I: m of each image or video, 1 or 2, (I,). Its h and w are multiples of m.

        Returns:
            (M, C), where M is the sum of t * h * w / m^2 over images and videos.

        Raises:
            ValueError: Grids, merge sizes and patches do not match.
            UserError: A training has attention dropout.
        """
        if self.training:
            refuse_dropout(self.config.attention_dropout, "encoder")
        rows = grid_thw_I3.tolist() if isinstance(grid_thw_I3, Tensor) else grid_thw_I3
        grids: Grids = [(t, h, w) for t, h, w in rows]
        merges: list[int] = merge_sizes_I.tolist() if isinstance(merge_sizes_I, Tensor) else merge_sizes_I
        _check(len(pixels_PX), grids, merges)
        if torch.is_grad_enabled():
            return self._encode(pixels_PX, grids, merges)
        # Frames are independent of each other, so without a backward pass they can be encoded in portions.
        max_patches = CPU_PORTION if pixels_PX.device.type == "cpu" else PORTION
        portions = list(_portions(grids, merges, max_patches))
        pixels = torch.split(pixels_PX, [_patch_count(portion_grids) for portion_grids, _ in portions])
        return torch.cat([self._encode(x, *portion) for x, portion in zip(pixels, portions, strict=True)])

    def _encode(self, pixels_PX: Tensor, grids: Grids, merges: list[int]) -> Tensor:
        weight = self.patch_embedding.weight.flatten(1)
        x_PC = F.linear(normalise(pixels_PX).to(weight.dtype), weight, self.patch_embedding.bias)
        segments = Segments.from_lengths([h * w for t, h, w in grids for _ in range(t)], x_PC.device)
        rotation = rotary(to_device(patch_positions(grids, merges), x_PC.device), self.config)
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x_PC = checkpoint(layer, x_PC, rotation, segments, use_reentrant=False)
            else:
                x_PC = layer(x_PC, rotation, segments)
        return merge(self.post_layernorm(x_PC), grids, merges)


class Block(nn.Module):
    """One pre-LayerNorm transformer block, with SigLIP's parameter names."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_PC: Tensor, rotation: Rotation, segments: Segments) -> Tensor:
        """(P, C) to (P, C)."""
        x_PC = x_PC + self.self_attn(self.layer_norm1(x_PC), rotation, segments)
        out: Tensor = x_PC + self.mlp(self.layer_norm2(x_PC))
        return out


class Attention(nn.Module):
    """Multi-head attention within segments. Queries and keys are rotated by the row and column of their patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        width = config.hidden_size
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_PC: Tensor, rotation: Rotation, segments: Segments) -> Tensor:
        """(P, C) to (P, C)."""
        q_PHD = rotate(self.q_proj(x_PC).unflatten(-1, (self.heads, -1)), rotation)
        k_PHD = rotate(self.k_proj(x_PC).unflatten(-1, (self.heads, -1)), rotation)
        v_PHD = self.v_proj(x_PC).unflatten(-1, (self.heads, -1))
        out: Tensor = self.out_proj(segment_attention(q_PHD, k_PHD, v_PHD, segments).flatten(-2))
        return out


class MLP(nn.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_PC: Tensor) -> Tensor:
        """(P, C) to (P, C)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x_PC), approximate="tanh"))
        return out


def _portions(grids: Grids, merges: list[int], max_patches: int) -> Iterator[tuple[Grids, list[int]]]:
    """Split a row between frames. Yield grids and merge sizes of each portion.

    A portion has at most `max_patches` patches, or a single frame that is larger.
    """
    portion_grids: Grids = []
    portion_merges: list[int] = []
    room = max_patches
    for (t, h, w), m in zip(grids, merges, strict=True):
        left = t
        while left:
            if portion_grids and room < h * w:
                yield portion_grids, portion_merges
                portion_grids, portion_merges, room = [], [], max_patches
            frames = min(left, max(room // (h * w), 1))
            portion_grids.append((frames, h, w))
            portion_merges.append(m)
            room -= frames * h * w
            left -= frames
    yield portion_grids, portion_merges


def patch_positions(grids: Grids, merges: list[int]) -> Tensor:
    """Return the row and column, from 0, of each patch in its frame, in packed order: int64 (P, 2)."""
    by_grid: dict[tuple[int, int, int], Tensor] = {}
    positions = []
    for (t, h, w), m in zip(grids, merges, strict=True):
        if (h, w, m) not in by_grid:
            by_row = torch.cartesian_prod(torch.arange(h), torch.arange(w)).view(h // m, m, w // m, m, 2)
            by_grid[h, w, m] = by_row.transpose(1, 2).reshape(h * w, 2)  # row by row to block by block
        positions.append(by_grid[h, w, m].repeat(t, 1))
    return torch.cat(positions)


def rotary(positions_P2: Tensor, config: VisionConfig) -> Rotation:
    """Return cosines and sines of the rotary angles, each float32 (P, 1, A): F angles for the row, F for the column.

    Both use the frequencies theta^(-2i / (D/2)), i < F. Frames of a video share positions: there is no time axis.
    """
    half = config.head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=positions_P2.device) / half
    angles_P2F = positions_P2[..., None].float() * (1.0 / config.rope_theta**exponents)
    angles_P1A = angles_P2F.flatten(1)[:, None]
    return angles_P1A.cos(), angles_P1A.sin()


def rotate(x_PHD: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (i, i + D/2) of each head: (P, H, D) to (P, H, D). Computed in float32 for any dtype."""
    cos, sin = rotation
    a, b = x_PHD.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_PHD.dtype)


def merge(x_PC: Tensor, grids: Grids, merges: list[int]) -> Tensor:
    """Average each m x m block: (P, C) to (M, C).

    The reference resizes the feature map bilinearly to half its sides; for m = 2 that equals this mean.
    """
    if set(merges) == {1}:
        return x_PC
    media = torch.split(x_PC, [t * h * w for t, h, w in grids])
    return torch.cat([torch.unflatten(x, 0, (-1, m * m)).mean(1) for x, m in zip(media, merges, strict=True)])


def _patch_count(grids: Grids) -> int:
    return sum(t * h * w for t, h, w in grids)


def _check(patches: int, grids: Grids, merges: list[int]) -> None:
    if len(grids) != len(merges):
        raise ValueError(f"{len(grids)} grids but {len(merges)} merge sizes: give one per image or video")
    for grid, m in zip(grids, merges, strict=True):
        if m not in (1, 2):
            raise ValueError(f"merge size {m}: use 1 or 2")
        if min(grid) < 1 or grid[1] % m or grid[2] % m:
            raise ValueError(f"grid {grid} with merge size {m}: sides must be positive multiples of the merge size")
    if (expected := _patch_count(grids)) != patches:
        raise ValueError(f"{patches} patches, but the grids have {expected}: pass both as Processor made them")
