"""Which decoders of transformers are taken in, and that those compute packed rows and answers as they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.errors import UserError
from model.config import ModelConfig, preset
from model.videollama3 import VideoLLaMA3
from tests.model.oracles import Sample, packed

ROPE = {"rope_theta": 1e4, "factor": 4.0}
LONG = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 16}
BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
WINDOW = {"sliding_window": 8, "max_position_embeddings": 9}


def _config(**language: Any) -> ModelConfig:
    tiny = preset("tiny")
    return tiny.model_copy(update={"language": {**tiny.language, **language}})


def _rope(kind: str, **fields: Any) -> dict[str, Any]:
    """Positions that are rescaled from 16 tokens on: samples of the tests are longer."""
    return {"max_position_embeddings": 64, "rope_parameters": {"rope_type": kind, **ROPE, **fields}}


@pytest.mark.parametrize(
    ("language", "advice"),
    [
        ({"model_type": "gpt2"}, "does not pass segments"),
        ({"model_type": "nonsense"}, "nonsense"),
        ({"model_type": "granite", "logits_scaling": 8.0}, "logits_scaling"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "full attention only"),
    ],
)
def test_language_model_without_segments_is_refused(language: dict[str, Any], advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        VideoLLaMA3(_config(**language), "meta")


@pytest.mark.parametrize(
    "language",
    [
        {"model_type": "mistral"},
        {"model_type": "mistral", **WINDOW},
        {"model_type": "mistral", **WINDOW, "layer_types": ["full_attention"] * 2},
        {"model_type": "mixtral", **WINDOW},
        {"model_type": "phi3", "pad_token_id": 0, **WINDOW},
        {"model_type": "starcoder2", **WINDOW},
        {"model_type": "llama", **WINDOW},
        {"model_type": "llama", "sliding_window": "8"},
    ],
)
def test_window_without_layer_types_is_refused(language: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="sliding_window") as caught:
        VideoLLaMA3(_config(**language), "meta")
    assert "set it to null" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "language",
    [
        _rope("dynamic"),
        _rope("longrope", **LONG),
        {"model_type": "phi3", "pad_token_id": 0, **_rope("longrope", **LONG)},
        {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        {
            "model_type": "mellum",
            "layer_types": ["full_attention"] * 2,
            "rope_parameters": {"full_attention": {"rope_type": "dynamic", **ROPE}},
        },
    ],
)
def test_positions_that_follow_the_longest_are_refused(language: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"rope_type (dynamic|longrope)") as caught:
        VideoLLaMA3(_config(**language), "meta")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "language",
    [
        {"model_type": "llama"},
        {"model_type": "qwen3"},
        {"sliding_window": 8, "use_sliding_window": False},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "mistral", "sliding_window": 64, "max_position_embeddings": 64},
        {"model_type": "llama", **_rope("linear")},
        {"model_type": "llama", **_rope("yarn", original_max_position_embeddings=16)},
        {"model_type": "llama", **_rope("llama3", **BANDS)},
    ],
)
def test_other_decoders_compute_packed_rows(language: dict[str, Any]) -> None:
    model = _drawn(language)
    samples = [Sample.of((1, 4, 6), seed=1), Sample.of((3, 4, 6), seed=3), Sample.of(seed=6)]
    assert max(len(sample.ids) for sample in samples) > 16
    with torch.no_grad():
        row = model(**packed(*samples)).logits
        single = torch.cat([model(**packed(sample)).logits for sample in samples])
    torch.testing.assert_close(row, single, atol=1e-4, rtol=0)
    # What `generate` reads from its cache is what the forward pass computes.
    ids = torch.arange(20, 44)
    (answer,) = model.generate(ids, max_new_tokens=8)
    with torch.no_grad():
        best = model(torch.cat([ids, answer])).logits[len(ids) - 1 : -1].argmax(-1)
    assert answer.tolist() == best.tolist()


def _drawn(language: dict[str, Any]) -> VideoLLaMA3:
    """A model whose weights are so large that its answers depend on what it attends to."""
    torch.manual_seed(0)
    model = VideoLLaMA3(_config(**language)).eval()
    for parameter in model.language.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    # Bytes only: placeholders would have no visual tokens.
    model.language.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits[..., :200])
    model.language.generation_config.eos_token_id = None
    return model
