"""Where samples, images and learned tokens lie in a packed row.

The host knows it before the row is on a device. A network that reads it there waits for all work that is queued.

    N tokens of the row, S samples, I images and videos, M merged tokens, K of them kept, L learned tokens
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.prompt import IGNORE_INDEX


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of a packed row. All of it is on the host.

    It is no mapping and no tuple, so FSDP2 leaves its tensors where they are.

    Attributes:
        lengths: Tokens of each sample, S integers.
        placeholders_K: Indices of the placeholders.
        grids: Frames, rows and columns of patches of each image or video.
        merges: Side of a merged block in patches of each image or video.
        kept_K: Indices of the kept ones among the merged tokens. None without a mask: all.
        mask_length: M, as the mask has it; None without a mask.
        learned_L: Indices of learned tokens; None without labels. A sample's first token is none: nothing predicts it.
    """

    lengths: tuple[int, ...]
    placeholders_K: Tensor
    grids: list[tuple[int, int, int]]
    merges: list[int]
    kept_K: Tensor | None
    mask_length: int | None
    learned_L: Tensor | None

    @staticmethod
    def of(row: Mapping[str, Tensor], placeholders: Collection[int]) -> Layout:
        """Return the layout of a row, which should be on the host.

        Args:
            row: Tensors of a `PackedRow`, by name; all but `input_ids` may be missing.
            placeholders: Token ids of placeholders.

        Raises:
            ValueError: The samples' lengths do not sum to the row's.
        """
        ids_N, lengths, labels_N, mask_M = (
            row[name].cpu() if name in row else None for name in ("input_ids", "segment_lengths", "labels", "keep_mask")
        )
        assert ids_N is not None
        samples = [len(ids_N)] if lengths is None else lengths.tolist()
        if ids_N.ndim != 1 or sum(samples) != len(ids_N):
            shape = tuple(ids_N.shape)
            raise ValueError(f"input_ids of shape {shape} for segments of {sum(samples)} tokens: pass one packed row")
        return Layout(
            lengths=tuple(samples),
            placeholders_K=_indices(torch.isin(ids_N, torch.tensor(list(placeholders)))),
            grids=[(t, h, w) for t, h, w in row["grid_thw"].tolist()] if "grid_thw" in row else [],
            merges=row["merge_sizes"].tolist() if "merge_sizes" in row else [],
            kept_K=None if mask_M is None else _indices(mask_M),
            mask_length=None if mask_M is None else len(mask_M),
            learned_L=None if labels_N is None else _learned(labels_N, samples),
        )

    def positions(self) -> Tensor:
        """Return the position of each token in its sample, 0, 1, 2, …: int64 (N,)."""
        return torch.cat([torch.arange(length) for length in self.lengths])


def _learned(labels_N: Tensor, lengths: list[int]) -> Tensor:
    learned_N = labels_N != IGNORE_INDEX
    learned_N[torch.tensor([0, *lengths[:-1]]).cumsum(0)] = False
    return _indices(learned_N)


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)
