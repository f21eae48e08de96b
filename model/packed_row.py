"""The input tensors of a forward pass of `VideoLLaMA3`.

N tokens, S samples, P patches, X values of a patch, I images and videos, M merged tokens before pruning

A learned token is one whose prediction the loss counts: a token of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.prompt import IGNORE_INDEX


@dataclass(frozen=True, eq=False)
class PackedRow(Mapping[str, Tensor]):
    """The tokens, images and videos of S samples, concatenated. Without media, the tensors of media are empty.

    It is also a mapping for `model(**row)`, which leaves out empty tensors.

    Attributes:
        input_ids: Token ids, int64 (N,), with one placeholder per kept visual token.
        segment_lengths: Number of tokens of each sample, int64 (S,).
        pixel_values: Patches (P, X): float32, normalised to -1 to 1, or uint8, which the model normalises.
        grid_thw: Number of frames, and rows and columns of patches per frame, int64 (I, 3), in the placeholders' order.
        merge_sizes: Side of a merged block in patches, 1 or 2, int64 (I,).
        keep_mask: Which merged tokens have a placeholder, bool (M,).
        labels: The id of each learned token at its own position (not shifted), elsewhere -100, int64 (N,). None if the
            row is not for training.
    """

    input_ids: Tensor
    segment_lengths: Tensor
    pixel_values: Tensor
    grid_thw: Tensor
    merge_sizes: Tensor
    keep_mask: Tensor
    labels: Tensor | None = None

    @classmethod
    def pack(cls, rows: Sequence[PackedRow]) -> PackedRow:
        """Concatenate rows that are on the CPU.

        Raises:
            ValueError: There are no rows, only some have labels, or patches differ in their dtype.
        """
        if not rows or len({row.labels is None for row in rows}) > 1:
            raise ValueError("rows to pack must be at least one, all with labels or all without")
        if len({row.pixel_values.dtype for row in rows}) > 1:  # torch.cat would turn 255 into 255.0
            raise ValueError("patches of rows to pack must be all uint8 or all normalised")
        names = [name for name, tensor in vars(rows[0]).items() if tensor is not None]
        # numpy takes large blocks in huge pages, which the kernel clears and maps in less than half of torch's time.
        return cls(
            **{name: torch.from_numpy(np.concatenate([vars(row)[name].numpy() for row in rows])) for name in names}
        )

    @classmethod
    def dummy(cls, patch_dim: int) -> PackedRow:
        """Return a row of two tokens, none of them learned, for a rank that is out of data."""
        return cls(
            input_ids=torch.zeros(2, dtype=torch.long),
            segment_lengths=torch.tensor([2]),
            pixel_values=torch.zeros(0, patch_dim),
            grid_thw=torch.zeros(0, 3, dtype=torch.long),
            merge_sizes=torch.zeros(0, dtype=torch.long),
            keep_mask=torch.zeros(0, dtype=torch.bool),
            labels=torch.full((2,), IGNORE_INDEX),
        )

    def with_media(self) -> PackedRow:
        """Return a row that has media: this one, or a copy with two blank patches, whose tokens are not kept.

        So every row runs through all layers: ranks gather sharded weights layer by layer, and must stay in step. Two
        patches, since torch.compile takes a size of 1 for a constant, and would compile the encoder once more.
        """
        if len(self.grid_thw):
            return self
        return replace(
            self,
            pixel_values=self.pixel_values.new_zeros(2, self.pixel_values.shape[1]),
            grid_thw=self.grid_thw.new_tensor([[1, 1, 2]]),
            merge_sizes=self.merge_sizes.new_ones(1),
            keep_mask=self.keep_mask.new_zeros(2),
        )

    def pin_memory(self) -> PackedRow:
        """Return the row in pinned memory of the host, from which copies to a GPU do not block."""
        tensors = {name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def to(
        self, device: torch.device | str, dtype: torch.dtype | None = None, *, non_blocking: bool = False
    ) -> PackedRow:
        """Return the row on a device. `dtype` is for normalised patches; None keeps theirs. uint8 ones stay uint8."""
        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        moved = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()}
        if self.pixel_values.is_floating_point():
            moved["pixel_values"] = moved["pixel_values"].to(dtype or self.pixel_values.dtype)
        return PackedRow(**moved)

    @property
    def label_count(self) -> int:
        """Number of learned tokens. A sample's first token is never learned: nothing predicts it."""
        if self.labels is None:
            return 0
        firsts = self.segment_lengths.cumsum(0) - self.segment_lengths
        return int((self.labels.index_fill(0, firsts, IGNORE_INDEX) != IGNORE_INDEX).sum())

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor | None = vars(self)[name]
        if tensor is None or not len(tensor):
            raise KeyError(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return (name for name, tensor in vars(self).items() if tensor is not None and len(tensor))

    def __len__(self) -> int:
        return len(list(iter(self)))
