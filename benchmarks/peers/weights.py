"""Random weights of CLIP ViT-B/32 and of an aesthetic head, in our form and, the same numbers, in Data-Juicer's.

Speed does not depend on them, and no hub is needed. The scale of the logits is 100, as in OpenAI's weights: Data-Juicer
divides by 100 to get a cosine.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE, WIDTH = "ViT-B-32", 512
HEAD = {0: (1024, WIDTH), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
"""Layers of LAION's second predictor by their number, rows and columns; those between are dropout."""

NAMES = {
    r"^visual\.proj$": "visual_projection.weight",
    r"^text_projection$": "text_projection.weight",
    r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
    r"^visual\.positional_embedding$": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.conv1\.": "vision_model.embeddings.patch_embedding.",
    r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",
    r"^visual\.ln_post\.": "vision_model.post_layernorm.",
    r"^visual\.transformer\.resblocks\.": "vision_model.encoder.layers.",
    r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
    r"^token_embedding\.": "text_model.embeddings.token_embedding.",
    r"^ln_final\.": "text_model.final_layer_norm.",
    r"^transformer\.resblocks\.": "text_model.encoder.layers.",
    r"\.ln_(\d)\.": r".layer_norm\1.",
    r"\.attn\.": ".self_attn.",
    r"\.c_fc\.": ".fc1.",
    r"\.c_proj\.": ".fc2.",
}
"""From open_clip's names to those of transformers, one after the other."""


@dataclass(frozen=True)
class Weights:
    """Where they are.

    Attributes:
        open_clip: A folder for `local-dir:`, and for our `encoder`.
        head: The aesthetic head, for our `weights`.
        clip: A folder of transformers, for Data-Juicer's `hf_clip`.
        predictor: A folder of simple-aesthetics-predictor, for Data-Juicer's `hf_scorer_model`.
    """

    open_clip: Path
    head: Path
    clip: Path
    predictor: Path


def weights(folder: Path) -> Weights:
    """Make them, unless they are there."""
    # Data-Juicer finds out by the name of the folder which predictor it is, and that its scores go to 10.
    found = Weights(
        *(folder / name for name in ("open_clip", "head.safetensors", "clip", "aesthetics-predictor-v2-linear"))
    )
    if not (found.predictor / "config.json").is_file():
        _make(found)
    return found


def _make(target: Weights) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    state["logit_scale"] = torch.tensor(math.log(100))
    head = {}
    for number, (rows, columns) in HEAD.items():
        head[f"layers.{number}.weight"] = torch.randn(rows, columns) / math.sqrt(columns)
        head[f"layers.{number}.bias"] = torch.full((rows,), 5.0 if rows == 1 else 0.0)
    for folder in (target.open_clip, target.clip, target.predictor):
        folder.mkdir(parents=True, exist_ok=True)
    save_file(state, target.open_clip / "open_clip_model.safetensors")
    save_file(head, target.head)
    config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": {}}
    (target.open_clip / "open_clip_config.json").write_text(json.dumps(config))
    renamed = _renamed(state)
    vision = {name: tensor for name, tensor in renamed.items() if name.startswith(("vision_", "visual_"))}
    for folder, tensors in ((target.clip, renamed), (target.predictor, vision | head)):
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        _describe_images_and_texts(folder)
    _write(target.clip / "config.json", _config())
    vision_config = _config()["vision_config"] | {"architectures": ["AestheticsPredictorV2Linear"]}
    _write(target.predictor / "config.json", vision_config)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of open_clip's CLIP under the names of transformers'."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in NAMES.items():
            name = re.sub(pattern, replacement, name)
        if name.endswith("_projection.weight"):
            tensor = tensor.T
        if ".in_proj_" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace("in_proj_", f"{letter}_proj.")] = part.contiguous()
        else:
            renamed[name] = tensor.contiguous()
    return renamed


def _config() -> dict[str, Any]:
    shared = {"hidden_act": "gelu", "num_hidden_layers": 12, "projection_dim": WIDTH}
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "eos_token_id": 49407}
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "patch_size": 32}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": WIDTH,
        "text_config": {"model_type": "clip_text_model", **shared, **text},
        "vision_config": {"model_type": "clip_vision_model", **shared, **vision},
    }


def _describe_images_and_texts(folder: Path) -> None:
    """What transformers' processor reads: sizes and means, and open_clip's vocabulary."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.tokenizer import SimpleTokenizer

    images = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": OPENAI_DATASET_MEAN,
        "image_std": OPENAI_DATASET_STD,
    }
    _write(folder / "preprocessor_config.json", images)
    tokenizer = SimpleTokenizer()
    start, end = "<|startoftext|>", "<|endoftext|>"
    words = [*list(tokenizer.encoder)[:-2], start, end]
    _write(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    merges = [" ".join(pair) for pair in tokenizer.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special})


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value))
