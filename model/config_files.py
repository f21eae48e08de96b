"""config.json of transformers' layout, written and read, and of the original repository's, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError
from model.config import ModelConfig, VisionConfig

WEIGHTS = "model.safetensors"

# Of the original's flat file: what is not Qwen2's.
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
    told = {
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
            "attention_dropout": 0.0,
            "rope_parameters": rope,
            **vision,
        },
    }
    (folder / "config.json").write_text(json.dumps(told, indent=2))


def transformers_config(told: dict[str, Any], folder: Path) -> ModelConfig:
    """Ours, out of transformers' config.json.

    Raises:
        UserError: It is another model's.
    """
    if told.get("model_type") != "video_llama_3":
        raise UserError(f"{folder}: a model of type {told.get('model_type')!r}: give a VideoLLaMA3 checkpoint")
    language = {"model_type": "qwen2", **_without_code(told["text_config"])}
    # transformers keeps what it ties beside the language model's own configuration.
    language.setdefault("tie_word_embeddings", told.get("tie_word_embeddings", False))
    language["tie_word_embeddings"] = language["tie_word_embeddings"] or told.get("tie_word_embeddings", False)
    return ModelConfig(
        vision=_vision(told["vision_config"]),
        language=language,
        image_token_id=told.get("image_token_id", 151655),
        video_token_id=told.get("video_token_id", 151656),
    )


def original_config(told: dict[str, Any]) -> ModelConfig:
    """Ours, out of the original repository's config.json, whose fields are Qwen2's plus a nested encoder's.

    Its `<image>` stands for both kinds; we use Qwen2.5's own placeholders instead, for visual tokens overwrite the
    embeddings of either.
    """
    language = {key: value for key, value in told.items() if key not in _NOT_LANGUAGE}
    return ModelConfig(vision=_vision(told["vision_encoder_config"]), language={"model_type": "qwen2", **language})


def parts_config(vision: Path, language: Path) -> ModelConfig:
    """Of a model to be put together from an encoder's folder and a language model's.

    Raises:
        UserError: One of them has no config.json.
    """
    told = read_json(vision / "config.json")
    tower = told.get("vision_config") or told.get("vision_encoder_config") or told
    return ModelConfig(vision=_vision(tower), language=_without_code(read_json(language / "config.json")))


def _without_code(language: dict[str, Any]) -> dict[str, Any]:
    """A language model's configuration without what names code of its own folder: that is never run, nor handed on."""
    return {key: value for key, value in language.items() if key != "auto_map"}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: No such file, or it is none.
    """
    try:
        return dict(json.loads(file.read_text()))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: give a folder with a checkpoint, as save_pretrained makes") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: no JSON object: {error}; copy it again") from error


def _vision(told: dict[str, Any]) -> VisionConfig:
    act = told.get("hidden_act", "gelu_pytorch_tanh")
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
    fields = {key: told[key] for key in VisionConfig.model_fields if told.get(key) is not None}
    theta = (told.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    return VisionConfig(**{**defaults, "rope_theta": theta, **fields})
