"""The language model: any decoder of transformers that can attend within segments; the configuration names it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from core.errors import UserError
from model.attention import LANGUAGE_ATTENTION, register_language_attention

if TYPE_CHECKING:
    from transformers import GenerationConfig

Language = Any
"""A causal language model of transformers, such as `Qwen2ForCausalLM`."""


KeyValues = Any
"""A `DynamicCache` of transformers: the keys and values of the first tokens of one sample."""

PORTION = 2048
"""Most tokens that are read at once behind others: their attention has a mask, of a row for each."""


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
            head, has layers without full attention or a window, or rotates by the length of what it reads.
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
    if _has_window(model.config):
        raise UserError(
            f"{kind} attends within a window (sliding_window {model.config.sliding_window!r}): set it to null in its "
            "config.json, or use a decoder with full attention only"
        )
    if rope := _rope_by_length(model.config):
        raise UserError(
            f"{kind} rotates all samples of a row by the longest (rope_type {rope}): use a decoder with rope_type "
            "default, linear, yarn or llama3"
        )


def _has_window(config: Any) -> bool:
    """Return whether `generate` would attend within a window, which packed rows do not have.

    Mistral, Mixtral, Phi3 and Starcoder2 mask by `sliding_window` alone, and `generate` makes its cache by it for any
    decoder, even for Llama. Only a class that knows `layer_types` masks and caches by these instead.
    """
    window = getattr(config, "sliding_window", None)
    if window is None or hasattr(type(config), "layer_types"):
        return False
    longest = getattr(config, "max_position_embeddings", None)
    return not (isinstance(window, int) and isinstance(longest, int) and window >= longest)


def _rope_by_length(config: Any) -> str | None:
    """Return the `rope_type` whose frequencies depend on the longest sample of a row or batch, or None.

    `dynamic` also keeps the frequencies of a longer row for later ones. A key must depend on its position alone in
    `generate`, too: caches keep it while the prompt grows.
    """
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = [part.get("rope_type") for part in (rotary, *rotary.values()) if isinstance(part, dict)]  # or by layer type
    return next((kind for kind in kinds if kind in ("dynamic", "longrope")), None)


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


def continue_prompts(
    language: Language,
    embeds: Sequence[Tensor],
    settings: GenerationConfig,
    streamer: Streamer | None = None,
    key_values: KeyValues | None = None,
) -> list[Tensor]:
    """Continue prompts as one batch, with transformers' `generate`.

    Args:
        language: The language model.
        embeds: Embeddings of each prompt, (n, W).
        settings: From `generation_config`.
        streamer: Receives each token; for a single prompt only.
        key_values: Those of the tokens before the prompt, for a single one only. They grow by the prompt's and the
            answer's, all but those of its last token.

    Returns:
        The new tokens of each prompt, (n,), its end token included.
    """
    # Padding is on the left, so that the next tokens of all prompts are in one column.
    batch_SNW = nn.utils.rnn.pad_sequence(list(embeds), batch_first=True, padding_side="left")
    ones = [torch.ones(len(prompt), dtype=torch.long, device=prompt.device) for prompt in embeds]
    mask_SN = nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side="left")
    read: dict[str, KeyValues] = {}
    if key_values is not None:
        read = {name_of_key_values(language): key_values}
        if key_values.get_seq_length():
            batch_SNW = _read_portions(language, batch_SNW, read)
        past = key_values.get_seq_length()
        # `generate` takes the embeddings of the whole prompt, and drops as many as there are keys.
        batch_SNW = torch.cat([batch_SNW.new_zeros(1, past, batch_SNW.shape[2]), batch_SNW], 1)
        mask_SN = mask_SN.new_ones(1, batch_SNW.shape[1])
    out = language.generate(
        inputs_embeds=batch_SNW, attention_mask=mask_SN, generation_config=settings, streamer=streamer, **read
    )
    return [_until_end(row, settings.eos_token_id) for row in out]


def _read_portions(language: Language, embeds_1NW: Tensor, read: dict[str, KeyValues]) -> Tensor:
    """Read a long prompt up to its last portion, which is returned."""
    *portions, last = torch.split(embeds_1NW, PORTION, 1)
    for portion in portions:
        language.model(inputs_embeds=portion, use_cache=True, **read)
    return last


def name_of_key_values(language: Language) -> str:
    """Return the argument's name: transformers has renamed it."""
    names = inspect.signature(language.prepare_inputs_for_generation).parameters
    return "cache" if "cache" in names else "past_key_values"


def _until_end(row: Tensor, ends: list[int] | None) -> Tensor:
    """Return the tokens up to the first end token, that token included."""
    if not ends:
        return row
    positions = torch.isin(row, torch.tensor(ends, device=row.device)).nonzero()
    return row[: int(positions[0]) + 1] if len(positions) else row


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
