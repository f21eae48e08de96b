"""Load a model with its processor: from a checkpoint, or from a step of a training stage under way."""

from __future__ import annotations

from pathlib import Path

import torch

from core.errors import UserError
from core.paths import check_path
from model.processor import Processor
from model.training.step_checkpoint import is_step, load_step
from model.videollama3 import VideoLLaMA3


def load_checkpoint(path: str | Path, dtype: torch.dtype | None = None) -> tuple[VideoLLaMA3, Processor]:
    """Load a model and its processor, on the CPU.

    Args:
        path: A folder in transformers' or the original layout, such as `OUT/1-encoder/model`; or a step's checkpoint of
            a stage under way, `OUT/1-encoder/step-00001000`.
        dtype: Type of the weights. Default: the type they were saved in.

    Raises:
        UserError: It is no such folder. If there is one in it, the message names it.
    """
    folder = Path(check_path(path))
    if is_step(folder):
        model, processor = load_step(folder)
        for parameter in model.parameters() if dtype else ():  # not `model.to`: it rounds the rotary frequencies, too
            parameter.data = parameter.data.to(dtype)
        return model, processor
    if not (folder / "config.json").is_file() and (inside := _newest_inside(folder)):
        raise UserError(f"{folder}: no checkpoint, but it has some in it: give {inside}")
    return VideoLLaMA3.from_pretrained(folder, dtype), Processor.from_pretrained(folder)


def _newest_inside(folder: Path) -> Path | None:
    """Return the newest export in the folder of a stage or of a training; without exports, the newest step."""
    for pattern in ("model/config.json", "*/model/config.json", "step-*/state.json", "*/step-*/state.json"):
        if found := [file.parent for file in folder.glob(pattern)]:
            return max(found, key=lambda checkpoint: checkpoint.stat().st_mtime)
    return None
