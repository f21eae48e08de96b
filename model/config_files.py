"""Read and write config.json in transformers' layout, and read the original repository's."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.errors import UserError, reading
from core.paths import check_path
from model.config import LAST_ID, ModelConfig, VisionConfig

if TYPE_CHECKING:
    from transformers import GenerationConfig

WEIGHTS = "model.safetensors"
PICKLE = "pytorch_model.bin"
"""Weights as older checkpoints have them; read if there are no safetensors."""

# Keys of the original's flat config.json that do not belong to Qwen2.
_NOT_LANGUAGE = {
    "model_type", "architectures", "auto_map", "vision_encoder", "vision_encoder_config", "mm_projector_type",
    "use_token_compression", "image_token_index", "torch_dtype", "dtype", "transformers_version", "image_size",
    "mm_hidden_size", "mm_attn_implementation", "use_flash_loss", "is_alignment", "tokenizer_model_max_length",
    "tokenizer_padding_side", "use_cache", "_name_or_path", "_attn_implementation_autoset",
}  # fmt: skip


def write_config(config: ModelConfig, folder: Path, dtype: torch.dtype) -> None:
    """Write transformers' config.json."""
    vision = config.vision.model_dump()
    rope = {"rope_type": "axial", "rope_theta": vision.pop("rope_theta")}
    stored = {
        "architectures": ["VideoLlama3ForConditionalGeneration"],
        "model_type": "video_llama_3",
        "dtype": str(dtype).removeprefix("torch."),
        "image_token_id": config.image_token_id,
        "video_token_id": config.video_token_id,
        "tie_word_embeddings": bool(config.language.get("tie_word_embeddings", False)),
        "text_config": config.language,
        "vision_config": {
            "model_type": "video_llama_3_vision",
            "hidden_act": "gelu_pytorch_tanh",
            "rope_parameters": rope,
            **vision,
        },
    }
    (folder / "config.json").write_text(json.dumps(stored, indent=2))


def transformers_config(stored: dict[str, Any], folder: Path) -> ModelConfig:
    """Convert transformers' config.json.

    Raises:
        UserError: It belongs to another model.
    """
    if stored.get("model_type") != "video_llama_3":
        raise UserError(f"{folder}: a model of type {stored.get('model_type')!r}: give a VideoLLaMA3 checkpoint")
    language = {"model_type": "qwen2", **_without_code(stored["text_config"])}
    # transformers stores tie_word_embeddings next to the language model's configuration.
    language.setdefault("tie_word_embeddings", stored.get("tie_word_embeddings", False))
    language["tie_word_embeddings"] = language["tie_word_embeddings"] or stored.get("tie_word_embeddings", False)
    return ModelConfig(
        vision=_vision(stored["vision_config"]),
        language=language,
        image_token_id=stored.get("image_token_id", 151655),
        video_token_id=stored.get("video_token_id", 151656),
    )


def original_config(stored: dict[str, Any], file: Path) -> ModelConfig:
    """Convert the original repository's config.json, which has Qwen2's fields and a nested encoder configuration.

    The original uses the placeholder `<image>` for images and videos. We use Qwen2.5's two placeholders instead: visual
    tokens overwrite their embeddings anyway.

    Raises:
        UserError: It has no shapes of the encoder, or a projector of another type.
    """
    projector = stored.get("mm_projector_type", "mlp2x_gelu")
    if projector != "mlp2x_gelu":
        raise UserError(f"{file}: mm_projector_type {projector!r}: only mlp2x_gelu is known")
    if not stored.get("vision_encoder_config"):  # the original's training code stores a name only
        raise UserError(
            f"{file}: has no vision_encoder_config, only the encoder's name {stored.get('vision_encoder')!r}: "
            "copy the content of that model's config.json there under this key"
        )
    language = {key: value for key, value in stored.items() if key not in _NOT_LANGUAGE}
    return ModelConfig(vision=_vision(stored["vision_encoder_config"]), language={"model_type": "qwen2", **language})


def parts_config(vision: Path, language: Path) -> ModelConfig:
    """Return the configuration of a model that joins an encoder and a language model, from their folders.

    Raises:
        UserError: A folder has no valid config.json.
    """
    stored, text = read_json(vision / "config.json"), read_json(language / "config.json")
    with reading(vision / "config.json"):
        tower = stored.get("vision_config") or stored.get("vision_encoder_config") or stored
        return ModelConfig(vision=_vision(tower), language=_without_code(text))


def _without_code(language: dict[str, Any]) -> dict[str, Any]:
    """Drop `auto_map`, which names code in the folder: such code is never run, and not passed on."""
    return {key: value for key, value in language.items() if key != "auto_map"}


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: The file cannot be read, or is not a JSON object.
    """
    check_path(file)
    try:
        return dict(json.loads(file.read_text()))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: give a folder with a checkpoint, as save_pretrained makes") from error
    except (ValueError, TypeError, RecursionError) as error:  # RecursionError: 100,000 brackets
        raise UserError(f"{file}: no JSON object: {error}; copy it again") from error


def special_tokens(folder: Path, default: GenerationConfig) -> GenerationConfig:
    """Return the special tokens of a folder's generation_config.json, or the default's if the folder has none.

    Everything else in the file is dropped. transformers' `generate` takes each value that a call leaves unset from the
    model's GenerationConfig, so that a temperature or a penalty there would change all answers.

    Raises:
        UserError: The file cannot be read, or a special token is neither None, an id nor a list of ids.
    """
    import transformers

    file = folder / "generation_config.json"
    stored = read_json(file) if file.is_file() else default.to_dict()
    tokens = {key: stored.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for key, value in tokens.items():
        for token in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(token, int) or isinstance(token, bool) or not -1 <= token <= LAST_ID:
                raise UserError(f"{file}: {key} must be the id of a token, not {reprlib.repr(token)}")
    config: Callable[..., GenerationConfig] = transformers.GenerationConfig
    return config(**tokens)


def _vision(stored: dict[str, Any]) -> VisionConfig:
    act = stored.get("hidden_act", "gelu_pytorch_tanh")
    if act != "gelu_pytorch_tanh":
        raise UserError(f"an encoder with {act}: only gelu_pytorch_tanh is known")
    # transformers' and the original's defaults, where config.json leaves a value out.
    defaults = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 16,
    }
    fields = {key: stored[key] for key in VisionConfig.model_fields if stored.get(key) is not None}
    theta = (stored.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    return VisionConfig(**{**defaults, "rope_theta": theta, **fields})
