"""Checkpoints with values that no model has: one line names the file and the key, and nothing is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import UserError
from model import Processor, VideoLLaMA3
from model.config import preset
from tests.model.oracles import Sample, packed

DEEP = "[" * 100_000
SIZE = "of the language model must be 1 to"


@pytest.mark.parametrize(
    ("file", "key", "value", "reason"),
    [
        ("config.json", "", DEEP, "config.json: no JSON object: "),
        ("generation_config.json", "", DEEP, "generation_config.json: no JSON object: "),
        ("processor_config.json", "", DEEP, "processor_config.json: no JSON object: "),
        ("vl3syn_processor.json", "", DEEP, "vl3syn_processor.json: cannot be read: "),
        ("config.json", "image_token_id", 10**30, "image_token_id: Input should be "),
        ("config.json", "vision_config.hidden_size", 10**12, "hidden_size: Input should be less than or equal to 131"),
        ("config.json", "vision_config.num_hidden_layers", 10**9, "num_hidden_layers: Input should be less than or"),
        ("config.json", "text_config.hidden_size", 10**12, f"hidden_size {SIZE} 131,072"),
        ("config.json", "text_config.num_hidden_layers", 10**9, f"num_hidden_layers {SIZE} 1,024"),
        ("config.json", "text_config.num_attention_heads", 0, f"num_attention_heads {SIZE} 4,096"),
        ("config.json", "text_config.num_key_value_heads", 0, f"num_key_value_heads {SIZE} 4,096"),
        ("config.json", "text_config.vocab_size", -1, f"vocab_size {SIZE} 16,777,216"),
        ("config.json", "text_config.hidden_size", "x", "Field 'hidden_size' expected int, got str"),
        ("generation_config.json", "eos_token_id", "x", "eos_token_id must be the id of a token, not 'x'"),
        ("generation_config.json", "eos_token_id", [258, 10**30], "eos_token_id must be the id of a token, not 1000"),
        ("generation_config.json", "bos_token_id", True, "bos_token_id must be the id of a token, not True"),
    ],
)  # fmt: skip
def test_invalid_value_in_a_checkpoint_is_a_one_line_error(
    tmp_path: Path, file: str, key: str, value: Any, reason: str
) -> None:
    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path)
    Processor.tiny().save_pretrained(tmp_path)
    if key:
        stored = json.loads((tmp_path / file).read_text())
        *way, last = key.split(".")
        inner = stored[way[0]] if way else stored
        inner[last] = value
        (tmp_path / file).write_text(json.dumps(stored))
    else:
        (tmp_path / file).write_text(value)
    with pytest.raises(UserError) as raised:
        (Processor if "processor" in file else VideoLLaMA3).from_pretrained(tmp_path)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [Processor, VideoLLaMA3])
def test_checkpoint_path_with_a_nul_is_a_one_line_error(kind: Any) -> None:
    with pytest.raises(UserError, match=r"no path: it has a NUL in it$"):
        kind.from_pretrained("a\0b")


def test_index_of_weights_without_a_map_is_a_one_line_error(tmp_path: Path) -> None:
    VideoLLaMA3(preset("tiny")).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.safetensors.index.json: cannot be read: no 'weight_map'"):
        VideoLLaMA3.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"vision_encoder": "DAMO-NLP-SG/SigLIP-NaViT"}, "has no vision_encoder_config, only the encoder's name "
         "'DAMO-NLP-SG/SigLIP-NaViT': copy the content of that model's config.json there under this key"),
        ({"vision_encoder": None, "vision_encoder_config": {}}, "has no vision_encoder_config"),
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear': only mlp2x_gelu is known"),
    ],
)  # fmt: skip
def test_original_layout_that_is_not_supported_is_refused(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    tiny = preset("tiny")
    vision = tiny.vision.model_dump() if "vision_encoder" not in settings else {}
    config = {**tiny.language, "model_type": "videollama3_qwen2", "vision_encoder_config": vision, **settings}
    if "vision_encoder_config" not in settings and not vision:
        del config["vision_encoder_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as raised:
        VideoLLaMA3.from_pretrained(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'config.json'}: {reason}")


@pytest.mark.parametrize("part", ["vision_config", "text_config"])
def test_attention_dropout_is_refused_in_training_only(tmp_path: Path, part: str) -> None:
    saved = VideoLLaMA3(preset("tiny"))
    saved.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored[part]["attention_dropout"] = 0.1
    (tmp_path / "config.json").write_text(json.dumps(stored))
    model, row = VideoLLaMA3.from_pretrained(tmp_path), packed(Sample.of((1, 4, 6), seed=1))
    with torch.no_grad():
        torch.testing.assert_close(model(**row).logits, saved(**row).logits)
    with pytest.raises(UserError, match=r"^attention_dropout 0.1 of the .*: attention here has none: set it to 0"):
        model.train()(**row, labels=row["input_ids"])
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())[part]["attention_dropout"] == 0.1
