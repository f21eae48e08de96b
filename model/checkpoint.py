"""Weights on disk: transformers' layout both ways, the original repository's layout, and parts to begin from.

| here                     | transformers: model.vision_model…  | DAMO-NLP-SG/VideoLLaMA3-*: model.vision_encoder… |
| ------------------------ | ---------------------------------- | ------------------------------------------------ |
| vision.patch_embedding.* | ….embeddings.patch_embedding.*     | ….embeddings.patch_embedding.*                   |
| vision.layers.*          | ….encoder.layers.*                 | ….encoder.layers.*                               |
| vision.post_layernorm.*  | ….post_layernorm.*                 | ….post_layernorm.*                               |
| projector.*              | model.projector.*                  | model.mm_projector.*                             |
| language.model.*         | model.language_model.*             | model.*                                          |
| language.lm_head.*       | lm_head.*                          | lm_head.*                                        |

What follows the star is the same everywhere. Weights tied to another are not stored.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from model.config import ModelConfig
from model.config_files import (
    WEIGHTS,
    original_config,
    parts_config,
    read_json,
    transformers_config,
    write_config,
)

if TYPE_CHECKING:
    from model.videollama3 import VideoLLaMA3

Table = Mapping[str, str]
"""Prefix here to prefix there; of several that fit, the first counts."""

TRANSFORMERS: Table = {
    "vision.patch_embedding.": "model.vision_model.embeddings.patch_embedding.",
    "vision.layers.": "model.vision_model.encoder.layers.",
    "vision.post_layernorm.": "model.vision_model.post_layernorm.",
    "projector.": "model.projector.",
    "language.model.": "model.language_model.",
    "language.lm_head.": "lm_head.",
}
ORIGINAL: Table = {
    "vision.patch_embedding.": "model.vision_encoder.embeddings.patch_embedding.",
    "vision.layers.": "model.vision_encoder.encoder.layers.",
    "vision.post_layernorm.": "model.vision_encoder.post_layernorm.",
    "projector.": "model.mm_projector.",
    "language.model.": "model.",
    "language.lm_head.": "lm_head.",
}
# The encoder alone, as VL3-SigLIP-NaViT stores it, and in SigLIP with its two towers.
_TOWER: Table = {
    "patch_embedding.": "embeddings.patch_embedding.",
    "layers.": "encoder.layers.",
    "post_layernorm.": "post_layernorm.",
}
_UNUSED = ("embeddings.position_embedding.", "embeddings.position_ids", "head.")  # of SigLIP


def rename(name: str, table: Table, back: bool = False) -> str:
    """A parameter's name there, or here if `back`.

    Raises:
        UserError: The table does not know it.
    """
    for ours, theirs in table.items():
        old, new = (theirs, ours) if back else (ours, theirs)
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise UserError(f"unknown weight {name}: the checkpoint is of another model")


def save(model: VideoLLaMA3, path: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write config.json, generation_config.json and model*.safetensors, shards of at most 5 GB.

    Args:
        weights: Instead of the model's own, under the same names; a trainer has gathered them, or changed their type.
    """
    from huggingface_hub import save_torch_state_dict

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()  # shards of what was saved here before would be read too
    shared = _tied(model)
    weights = model.state_dict() if weights is None else weights
    renamed = {rename(name, TRANSFORMERS): weight for name, weight in weights.items() if name not in shared}
    save_torch_state_dict(renamed, folder, max_shard_size="5GB", metadata={"format": "pt"})
    readable_by_umask(folder)
    write_config(model.config, folder, next(iter(renamed.values())).dtype)
    model.language.generation_config.save_pretrained(folder)


def readable_by_umask(folder: Path) -> None:
    """Give a folder's safetensors the mode of any new file: the library writes them for their owner alone."""
    files = list(folder.glob("*.safetensors"))
    usual = folder / ".mode"
    usual.touch()
    for file in files:
        shutil.copymode(usual, file)
    usual.unlink()


def load(path: str | Path, dtype: torch.dtype | None = None) -> VideoLLaMA3:
    """Read a folder in either layout.

    Raises:
        UserError: It is no such checkpoint, a weight is missing, unknown or of another shape.
    """
    folder = Path(path)
    told = read_json(folder / "config.json")
    original = told.get("model_type") == "videollama3_qwen2"
    config = original_config(told) if original else transformers_config(told, folder)
    table = ORIGINAL if original else TRANSFORMERS
    kind = dtype or getattr(torch, str(told.get("dtype") or told.get("torch_dtype") or "float32"))
    model = _empty(config, kind)
    # The local training format doubles a prefix.
    pairs = ((_undoubled(name), tensor) for name, tensor in tensors(folder))
    fill(model, ((rename(name, table, back=True), tensor) for name, tensor in pairs), folder, _tied(model))
    if (folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        auto: Any = GenerationConfig
        model.language.generation_config = auto.from_pretrained(folder)
    return model


def from_parts(vision: str | Path, language: str | Path) -> VideoLLaMA3:
    """Begin a training: an encoder, a language model, and a new projector between them, all float32.

    Args:
        vision: A folder of SigLIP, whose position table, head and text tower are left out, or of VL3-SigLIP-NaViT.
        language: A folder of Qwen2.5 or a like.

    Raises:
        UserError: One of them is no such checkpoint.
    """
    from model.videollama3 import VideoLLaMA3

    model = VideoLLaMA3(parts_config(Path(vision), Path(language)))
    fill(model.vision, _tower(Path(vision)), Path(vision), set())
    tied = {name.removeprefix("language.") for name in _tied(model)}
    fill(model.language, tensors(Path(language)), Path(language), tied)
    return model


def _tower(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights of an encoder under our names."""
    for name, tensor in tensors(folder):
        inner = name.removeprefix("vision_model.").removeprefix("vision_encoder.")
        if not name.startswith(("text_model.", "logit_")) and not inner.startswith(_UNUSED):
            yield rename(inner, _TOWER, back=True), tensor


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """All weights of a folder's safetensors, one at a time.

    Raises:
        UserError: There are none, or a file is broken.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / f"{WEIGHTS}.index.json"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS]
    for file in files:
        if not (folder / file).is_file():
            raise UserError(f"{folder}: no {file}: copy all of the checkpoint's safetensors there")
        try:
            with safe_open(folder / file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118, it is no mapping
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{folder / file}: broken: {error}; copy it again") from error


def fill(module: nn.Module, weights: Iterator[tuple[str, Tensor]], folder: Path, tied: set[str]) -> None:
    """Copy weights in place, each into its own type and device; every one must have its counterpart.

    Raises:
        UserError: One is missing, unknown or of another shape.
    """
    targets = module.state_dict(keep_vars=True)
    missing = set(targets) - tied
    with torch.no_grad():
        for name, tensor in weights:
            if name not in targets or targets[name].shape != tensor.shape:
                shape = tuple(targets[name].shape) if name in targets else "nothing"
                raise UserError(f"{folder}: {name} is {tuple(tensor.shape)} where {shape} belongs: another model?")
            targets[name].copy_(tensor)
            missing.discard(name)
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, {min(missing)} among them: copy all its files")


def _empty(config: ModelConfig, dtype: torch.dtype) -> VideoLLaMA3:
    """A model whose weights are not drawn, since they are read."""
    from transformers.initialization import no_init_weights

    from model.videollama3 import VideoLLaMA3

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            model = VideoLLaMA3(config)
        model.language.tie_weights()  # a part of what was left out
        return model.eval()
    finally:
        torch.set_default_dtype(before)


def _tied(model: VideoLLaMA3) -> set[str]:
    """Names of weights that are another's: the head's, where it is the embeddings' transpose."""
    return {"language.lm_head.weight"} if model.language.config.tie_word_embeddings else set()


def _undoubled(name: str) -> str:
    return name.replace("model.vision_encoder.vision_encoder.", "model.vision_encoder.", 1)
