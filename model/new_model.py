"""Configure models with new weights: their sizes are a preset's or one's own, their vocabulary is the tokenizer's."""

from __future__ import annotations

from typing import Any

from core.errors import UserError
from model.config import LanguageSizes, ModelConfig, VisionConfig, preset
from model.processor import Processor
from model.prompt import CHAT_TEMPLATE

_ROWS = 64
"""The embedding table has a multiple of this number of rows. GPUs multiply such matrices faster."""

_END = "<|im_end|>"  # of our template; in pieces, the last of them would end any answer


def configure(vision: VisionConfig, language: LanguageSizes, processor: Processor) -> ModelConfig:
    """Return the configuration of a model of these sizes, with the vocabulary of the processor's tokenizer.

    Raises:
        UserError: The tokenizer has no token that ends a turn.
    """
    return _with_vocabulary(vision, language.fields(), processor)


def configure_preset(name: str, processor: Processor) -> ModelConfig:
    """Return a preset with the vocabulary of the processor's tokenizer.

    The preset stays as it is if it was made for the tokenizer: if the ids of the placeholders are the same, and its
    embedding table has a row for each token.

    Raises:
        UserError: There is no such preset, or another tokenizer has no token that ends a turn.
    """
    config = preset(name)
    ids = _placeholders(processor)
    if ids == (config.image_token_id, config.video_token_id) and _tokens(processor) <= config.language["vocab_size"]:
        return config
    return _with_vocabulary(config.vision, config.language, processor)


def _with_vocabulary(vision: VisionConfig, language: dict[str, Any], processor: Processor) -> ModelConfig:
    if processor.chat_template == CHAT_TEMPLATE and _END not in processor.tokenizer.get_vocab():
        raise UserError(f"the tokenizer has no token {_END}, which ends a turn: add it as a special token")
    vocabulary = {
        "vocab_size": -(-_tokens(processor) // _ROWS) * _ROWS,
        "bos_token_id": processor.tokenizer.bos_token_id,
        "eos_token_id": processor.end_token,
    }
    image, video = _placeholders(processor)
    return ModelConfig(vision=vision, language=language | vocabulary, image_token_id=image, video_token_id=video)


def _tokens(processor: Processor) -> int:
    ids: dict[str, int] = processor.tokenizer.get_vocab()
    return 1 + max(ids.values())


def _placeholders(processor: Processor) -> tuple[int, int]:
    """Return the ids of the placeholders of images and of videos."""
    tokens = processor.config.image_token, processor.config.video_token
    image, video = map(processor.tokenizer.convert_tokens_to_ids, tokens)
    return image, video
