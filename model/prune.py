"""DiffFP, the differential frame pruner: visual tokens that look like the frame before need not be read twice.

arXiv 2501.13106 section 2.2 and the reference's `_get_compression_mask`, which transformers' video processor has too.
Decided from pixels alone, so the prompt gets placeholders for kept tokens only. Encoder and projector still see all
frames whole: what is saved is the language model's work.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Pruning(BaseModel):
    """When a token of a frame is kept.

    Attributes:
        threshold: Mean absolute change of the token's 28 x 28 x 3 pixel values above which it is kept, in `unit`.
        unit: `reference`: 255 times the change of normalised values, that is twice the change in grey levels; the
            published 0.1 means a twentieth of one grey level, so that only still pictures are pruned.
            `grey`: grey levels of 0 to 255. RLT, which the paper cites for its 0.1, drops at about 5.7 of them.
        against: `previous`: the frame before, kept or not. `kept`: the token as it was last kept at this place, so
            that a slow drift, whose every step is below the threshold, is seen when it has added up.
        min_tokens: Of a frame with fewer kept tokens, the first ones are kept.
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
    """Which merged tokens of one image or clip are kept.

    Args:
        patches_PX: Its normalised patches, block by block.
        grid: Its frames, rows and columns of patches.
        merge: Side of a block, patches.
        pruning: None keeps all.

    Returns:
        bool (M,); the first frame is all True.
    """
    t, h, w = grid
    tokens_TNX = patches_PX.view(t, (h // merge) * (w // merge), -1)
    keep_TN = torch.ones(tokens_TNX.shape[:2], dtype=torch.bool)
    if pruning is None:
        return keep_TN.flatten()
    seen_NX = tokens_TNX[0]
    for k in range(1, t):  # frame by frame: the difference of whole clips would take as much memory as they
        keep_TN[k] = (tokens_TNX[k] - seen_NX).abs().mean(dim=-1) * 255 > pruning.scaled
        if keep_TN[k].sum() < pruning.min_tokens:
            keep_TN[k, : pruning.min_tokens] = True
        if pruning.against == "previous":
            seen_NX = tokens_TNX[k]
        else:
            seen_NX = torch.where(keep_TN[k, :, None], tokens_TNX[k], seen_NX)
    return keep_TN.flatten()
