"""An encoder alone, in the layout of VL3-SigLIP-NaViT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model import Processor, VideoLLaMA3
from model.config import preset
from model.encoder_files import save_encoder
from tests.model.oracles import ours_of, whole_oracle


@pytest.fixture(scope="module")
def oracle() -> Any:
    return whole_oracle()


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a language model."""
    folder = tmp_path_factory.mktemp("language")
    model = VideoLLaMA3(preset("tiny"))
    model.language.save_pretrained(folder)
    return folder


def test_encoder_has_the_names_and_bits_of_the_original_layout(oracle: Any, tmp_path: Path) -> None:
    save_encoder(ours_of(oracle).vision, Processor.tiny().config, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    theirs = {name.removeprefix("model.vision_model."): w for name, w in oracle.state_dict().items()}
    expected = {name: w for name, w in theirs.items() if not name.startswith(("model.", "lm_head."))}
    assert {"embeddings.patch_embedding.weight", "encoder.layers.1.mlp.fc2.bias", "post_layernorm.bias"} <= set(stored)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in stored)


def test_encoder_files_have_the_fields_of_the_original_classes(tmp_path: Path) -> None:
    """Of the encoder's configuration and image processor at 05cee23; without auto_map, since no code lies there."""
    save_encoder(VideoLLaMA3(preset("tiny")).vision.to(torch.bfloat16), Processor.tiny().config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "architectures": ["Videollama3VisionEncoderModel"],
        "model_type": "videollama3_vision_encoder",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_channels": 3,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
        "torch_dtype": "bfloat16",
    }
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {
        "image_processor_type": "Videollama3ImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "patch_size": 14,
        "min_tokens": 16,
        "max_tokens": 16384,
    }
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exported_encoder_starts_a_training_bit_equal(language: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    encoder = VideoLLaMA3(preset("small")).vision.to(dtype)
    save_encoder(encoder, Processor.tiny().config, tmp_path)
    joined = VideoLLaMA3.from_parts(tmp_path, language)
    assert joined.config.vision == encoder.config
    assert all(torch.equal(w, encoder.state_dict()[name].float()) for name, w in joined.vision.state_dict().items())


def test_other_rotary_base_comes_back(language: Path, tmp_path: Path) -> None:
    """The original's is fixed."""
    config = preset("tiny")
    config = config.model_copy(update={"vision": config.vision.model_copy(update={"rope_theta": 500.0})})
    save_encoder(VideoLLaMA3(config).vision, Processor.tiny().config, tmp_path)
    assert VideoLLaMA3.from_parts(tmp_path, language).config.vision.rope_theta == 500
