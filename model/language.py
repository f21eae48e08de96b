"""The language model: any decoder of transformers that can attend within segments; the configuration names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from core.errors import UserError
from model.attention import LANGUAGE_ATTENTION, register_language_attention

if TYPE_CHECKING:
    from transformers import GenerationConfig

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
        UserError: It does not pass segments on to its attention, is not built like Qwen2, changes the logits of its
            head, or has layers without full attention.
    """
    kind = model.config.model_type
    if not model._supports_attention_backend or model.base_model_prefix != "model":
        raise UserError(f"{kind} does not pass segments on to its attention: use qwen2, qwen3, llama or a like")
    for name in ("logits_scaling", "logit_scale", "final_logit_softcapping"):
        if getattr(model.config, name, None) not in (None, 1):
            raise UserError(f"{kind} changes logits behind its head ({name}): use qwen2, qwen3, llama or a like")
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        others = ", ".join(sorted(layers - {"full_attention"}))
        raise UserError(f"{kind} has layers with {others}: use a decoder with full attention only")


def generation_config(language: Language, max_new_tokens: int, temperature: float, top_p: float) -> GenerationConfig:
    """Return settings for transformers' `generate`.

    Args:
        language: The language model. `generate` fills what is unset here from its generation_config, which therefore
            must hold special tokens only.
        max_new_tokens: Maximum tokens of an answer.
        temperature: 0 takes the most probable token.
        top_p: Total probability of the tokens that are sampled from.
    """
    import transformers

    ends = end_tokens(language)
    sampled = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
    pad = ends[0] if ends else 0  # only after an end token, where it is cut off
    config: Callable[..., GenerationConfig] = transformers.GenerationConfig
    return config(
        max_new_tokens=max_new_tokens,
        do_sample=bool(temperature),
        eos_token_id=ends or None,
        pad_token_id=pad,
        **sampled,
    )


def add_end_token(language: Language, token: int) -> None:
    """End answers at one more token, if they do not end there already."""
    ends = end_tokens(language)
    if token not in ends:
        language.generation_config.eos_token_id = [*ends, token]


def end_tokens(language: Language) -> list[int]:
    """Return the ids of the tokens that end an answer."""
    ends: int | list[int] | None = language.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
