"""The language model: any decoder of transformers that can attend within segments; the configuration names it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from core.errors import UserError
from model.attention import LANGUAGE_ATTENTION, register_language_attention

Language = Any
"""A causal language model of transformers, such as `Qwen2ForCausalLM`."""


class Streamer(Protocol):
    """A streamer of transformers' `generate`, which calls `put` with new token ids, and `end` at the end."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


def build_language(config: dict[str, Any]) -> Language:
    """Build a decoder with new weights.

    Args:
        config: Contents of its config.json; `model_type` names the class.

    Raises:
        UserError: There is no such decoder, or it cannot run packed rows.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    register_language_attention()
    kind = config.get("model_type")
    fields = {key: value for key, value in config.items() if key != "model_type"}
    try:
        auto: Any = AutoConfig
        parsed = auto.for_model(kind, **fields)
        auto = AutoModelForCausalLM
        model = auto.from_config(
            parsed, attn_implementation=LANGUAGE_ATTENTION, dtype=torch.get_default_dtype(), trust_remote_code=False
        )
    except (KeyError, ValueError, StrictDataclassError) as error:
        raise UserError(
            f"language model of type {kind!r}: {_line(error)}; use qwen2, qwen3, llama or a like"
        ) from error
    check_language(model)
    return model


def check_language(model: Language) -> None:
    """Check that a decoder can run packed rows.

    Raises:
        UserError: It does not pass segments on to its attention, is not built like Qwen2, or has layers without full
            attention.
    """
    kind = model.config.model_type
    if not model._supports_attention_backend or model.base_model_prefix != "model":
        raise UserError(f"{kind} does not pass segments on to its attention: use qwen2, qwen3, llama or a like")
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        others = ", ".join(sorted(layers - {"full_attention"}))
        raise UserError(f"{kind} has layers with {others}: use a decoder with full attention only")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
