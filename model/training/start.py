"""Open the model that a training starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model.training.recipe import Start

if TYPE_CHECKING:
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3


def open_start(start: Start, seed: int) -> tuple[VideoLLaMA3, Processor]:
    """Return the model, with weights in fp32, and the processor that a training starts with.

    Raises:
        UserError: A folder is not a valid checkpoint.
    """
    from model.config import LanguageSizes, VisionConfig
    from model.language import add_end_token
    from model.new_model import configure, configure_preset
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(seed)
    if start.checkpoint:
        return VideoLLaMA3.from_pretrained(start.checkpoint, torch.float32), Processor.from_pretrained(start.checkpoint)
    if not isinstance(start.vision, str) or not isinstance(start.language, str):
        processor = Processor.from_pretrained(start.tokenizer) if start.tokenizer else Processor.tiny()
        if start.preset:
            return VideoLLaMA3(configure_preset(start.preset, processor)), processor
        assert isinstance(start.vision, VisionConfig)
        assert isinstance(start.language, LanguageSizes)
        config = configure(start.vision, start.language, processor)
        return VideoLLaMA3(config), processor.with_patch_size(start.vision.patch_size)
    model, processor = VideoLLaMA3.from_parts(start.vision, start.language), Processor.from_pretrained(start.language)
    if processor.end_token is not None:  # base models end texts with another token
        add_end_token(model.language, processor.end_token)
    return model, processor.with_patch_size(model.config.vision.patch_size)
