"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685) by peft: add them, and merge them for the export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from core.errors import UserError
from model.training.stage import Lora

if TYPE_CHECKING:
    from model.videollama3 import VideoLLaMA3

_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: VideoLLaMA3, lora: Lora) -> None:
    """Add adapters to the language model's layers. At first they do not change its output.

    Parameters of an adapter have `lora_` in their names, those of the adapted layer `base_layer`. So learning rates are
    `{"language.*lora_": 1.0e-4, "language": frozen}`.

    Raises:
        UserError: peft is not installed, or a target is the embedding table, or a head that shares its weight: the
            export could not have the adapter.
        ValueError: No layer has a name in `targets`.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'vl3syn[train]'") from error
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets))
    inject_adapter_in_model(config, model.language)
    table = ("embed_tokens", "lm_head") if model.language.config.tie_word_embeddings else ("embed_tokens",)
    for name, _ in model.language.named_parameters():
        for layer in table:
            if f"{layer}.lora_" in name:
                raise UserError(f"lora: {layer}: the embedding table takes no adapter: take it out of `targets`")


def merged(weights: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """Return the weights under their original names, with adapters merged: W + alpha / r * up @ down."""
    plain = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        stem = name.replace(".base_layer", "")
        layer = stem.removesuffix(".weight")
        if _BASE in name and layer + _DOWN in weights and stem.endswith(".weight"):
            update = weights[layer + _UP].float() @ weights[layer + _DOWN].float()
            weight = weight + (lora.alpha / lora.r * update).to(weight.dtype)
        plain[stem] = weight
    return plain
