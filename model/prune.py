"""DiffFP, the differential frame pruner: drop visual tokens whose pixels hardly differ from the previous frame.

See arXiv 2501.13106, section 2.2, and the reference's `_get_compression_mask`, also in transformers' video processor.
The decision needs pixels only, so the prompt has placeholders for kept tokens only. The encoder still reads all frames
whole; pruning saves work in the projector and the language model.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from model.images import normalise


class Pruning(BaseModel):
    """Settings that decide which tokens of a frame are kept.

    Attributes:
        threshold: A token is kept if its 28 x 28 x 3 pixel values (merge size 2) change by more than this on average
            (mean absolute change), in `unit`.
        unit: `reference`: 255 times the change of normalised values, which is twice the change in grey levels. The
            published 0.1 is a twentieth of one grey level, so only still pictures are pruned.
            `grey`: grey levels, 0 to 255. RLT, which the paper cites for its 0.1, drops below about 5.7 of them.
        against: `previous`: compare with the previous frame, kept or not. `kept`: compare with the last kept token at
            the same position. This detects a slow drift, whose single steps are below the threshold.
        min_tokens: If fewer tokens of a frame change, its first `min_tokens` tokens are kept too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.1, ge=0)
    unit: Literal["reference", "grey"] = "reference"
    against: Literal["previous", "kept"] = "previous"
    min_tokens: int = Field(default=1, ge=1)

    @property
    def scaled(self) -> float:
        """The threshold in the reference's unit."""
        return self.threshold * (2 if self.unit == "grey" else 1)


class Pruner:
    """Decides frame by frame, in the order of a film, which merged tokens are kept.

    N merged tokens of a frame, X values of one
    """

    def __init__(self, pruning: Pruning | None) -> None:
        """Begin a film. `pruning`: settings; None keeps all tokens."""
        self.pruning = pruning
        self._seen_NX: Tensor | None = None  # what the next frame is compared with

    def keep(self, tokens_NX: Tensor) -> Tensor:
        """Return which tokens of the next frame are kept, bool (N,); all True for the first frame.

        Args:
            tokens_NX: Pixels of the frame's merged tokens, uint8 or normalised.
        """
        keep_N = torch.ones(len(tokens_NX), dtype=torch.bool)
        if self.pruning is None:
            return keep_N
        tokens_NX = normalise(tokens_NX)
        if self._seen_NX is None:
            self._seen_NX = tokens_NX
            return keep_N
        keep_N = (tokens_NX - self._seen_NX).abs().mean(dim=-1) * 255 > self.pruning.scaled
        if keep_N.sum() < self.pruning.min_tokens:
            keep_N[: self.pruning.min_tokens] = True
        drifts = self.pruning.against == "kept"
        self._seen_NX = torch.where(keep_N[:, None], tokens_NX, self._seen_NX) if drifts else tokens_NX
        return keep_N


def keep_mask(patches_PX: Tensor, grid: tuple[int, int, int], merge: int, pruning: Pruning | None) -> Tensor:
    """Return which merged tokens of one image or video are kept.

    Args:
        patches_PX: Patches (P, X), uint8 or normalised, frame by frame, block by block.
        grid: Frames, rows and columns of patches.
        merge: Side of a merged block, in patches.
        pruning: Settings; None keeps all tokens.

    Returns:
        bool (M,); all True for the first frame.
    """
    t, h, w = grid
    pruner = Pruner(pruning)
    # Frame by frame: floats of a whole video need several times the memory of its pixels.
    return torch.cat([pruner.keep(frame_NX) for frame_NX in patches_PX.view(t, (h // merge) * (w // merge), -1)])
