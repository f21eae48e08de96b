"""Open the model that a training starts with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model.training.recipe import Start

if TYPE_CHECKING:
    from model.config import ModelConfig
    from model.processor import Processor
    from model.training.stage import Stage
    from model.videollama3 import VideoLLaMA3


def open_stage(start: Start, stage: Stage, seed: int, number: int) -> tuple[VideoLLaMA3, Processor]:
    """Return the model, with the stage's adapters, and the processor that stage `number`, from 1, begins with.

    Frozen weights are in no checkpoint, so adapters are drawn the same way each time.

    Raises:
        UserError: A folder is not a valid checkpoint, or a layer takes no adapter.
    """
    from model.training.lora import add_adapters

    model, processor = open_start(start, seed)
    if stage.lora:
        torch.manual_seed(seed + number)
        add_adapters(model, stage.lora)
    return model, processor


def open_start(start: Start, seed: int) -> tuple[VideoLLaMA3, Processor]:
    """Return the model, with weights in fp32, and the processor that a training starts with.

    Raises:
        UserError: A folder is not a valid checkpoint.
    """
    from model.language import add_end_token
    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(seed)
    config, processor = configure_start(start)
    if start.checkpoint:
        return VideoLLaMA3.from_pretrained(start.checkpoint, torch.float32), processor
    if not isinstance(start.vision, str) or not isinstance(start.language, str):
        return VideoLLaMA3(config), processor
    model = VideoLLaMA3.from_parts(start.vision, start.language)
    if processor.end_token is not None:  # base models end texts with another token
        add_end_token(model.language, processor.end_token)
    return model, processor


def configure_start(start: Start) -> tuple[ModelConfig, Processor]:
    """Return the configuration of the model, without reading its weights, and the processor.

    Raises:
        UserError: A folder has no valid configuration or tokenizer.
    """
    from model.config import LanguageSizes, VisionConfig
    from model.config_files import parts_config
    from model.new_model import configure, configure_preset
    from model.processor import Processor
    from model.weights_io import open_model

    if start.checkpoint:
        return open_model(Path(start.checkpoint)).config, Processor.from_pretrained(start.checkpoint)
    if isinstance(start.vision, str) and isinstance(start.language, str):
        config = parts_config(Path(start.vision), Path(start.language))
        return config, Processor.from_pretrained(start.language).with_patch_size(config.vision.patch_size)
    processor = Processor.from_pretrained(start.tokenizer) if start.tokenizer else Processor.tiny()
    if start.preset:
        return configure_preset(start.preset, processor), processor
    assert isinstance(start.vision, VisionConfig)
    assert isinstance(start.language, LanguageSizes)
    config = configure(start.vision, start.language, processor)
    return config, processor.with_patch_size(start.vision.patch_size)
