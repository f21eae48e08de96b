"""Load a checkpoint on the device that the user chose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3


def load_model(checkpoint: str, device: str | None, dtype: str) -> tuple[VideoLLaMA3, Processor]:
    """Return a checkpoint's model and processor.

    Args:
        checkpoint: Its folder.
        device: `--device`; None: a GPU if there is one.
        dtype: `--dtype`, checked.

    Raises:
        UserError: There is no such device, or the folder is no checkpoint.
    """
    import torch

    from model.checkpoint import load_checkpoint
    from model.weights_io import weights_dtype

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if torch.empty(0, device=chosen).is_meta:
            raise UserError("--device meta: holds no weights: use cuda or cpu")
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise UserError(f"--device {chosen}: {str(error).splitlines()[0]}") from error
    weights = weights_dtype(dtype, torch.device(chosen).type != "cpu")
    model, processor = load_checkpoint(checkpoint, weights)
    return model.to(chosen), processor
