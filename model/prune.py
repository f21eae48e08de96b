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
    tokens_TNX = patches_PX.view(t, (h // merge) * (w // merge), -1)
    keep_TN = torch.ones(tokens_TNX.shape[:2], dtype=torch.bool)
    if pruning is None:
        return keep_TN.flatten()
    seen_NX = normalise(tokens_TNX[0])
    for k in range(1, t):  # frame by frame: floats of a whole video need several times the memory of its pixels
        tokens_NX = normalise(tokens_TNX[k])
        keep_TN[k] = (tokens_NX - seen_NX).abs().mean(dim=-1) * 255 > pruning.scaled
        if keep_TN[k].sum() < pruning.min_tokens:
            keep_TN[k, : pruning.min_tokens] = True
        seen_NX = tokens_NX if pruning.against == "previous" else torch.where(keep_TN[k, :, None], tokens_NX, seen_NX)
    return keep_TN.flatten()
