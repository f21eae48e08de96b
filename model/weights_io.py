"""Weights on disk: transformers' layout both ways, the original repository's layout, and parts to start from.

| here                     | transformers: model.vision_model…  | DAMO-NLP-SG/VideoLLaMA3-*: model.vision_encoder… |
| ------------------------ | ---------------------------------- | ------------------------------------------------ |
| vision.patch_embedding.* | ….embeddings.patch_embedding.*     | ….embeddings.patch_embedding.*                   |
| vision.layers.*          | ….encoder.layers.*                 | ….encoder.layers.*                               |
| vision.post_layernorm.*  | ….post_layernorm.*                 | ….post_layernorm.*                               |
| projector.*              | model.projector.*                  | model.mm_projector.*                             |
| language.model.*         | model.language_model.*             | model.*                                          |
| language.lm_head.*       | lm_head.*                          | lm_head.*                                        |

The suffix after `*` is identical in all layouts. Tied weights are not stored.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import UserError, reading
from model.config import ModelConfig
from model.config_files import WEIGHTS, original_config, read_json, transformers_config

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


@dataclass(frozen=True)
class StoredModel:
    """A checkpoint folder that is open for reading.

    Attributes:
        config: Shapes and token ids.
        dtype: The type that the weights were saved in.
        weights: Names in `VideoLLaMA3` and tensors, read from disk one at a time.
    """

    config: ModelConfig
    dtype: torch.dtype
    weights: Iterator[tuple[str, Tensor]]


def open_model(folder: Path) -> StoredModel:
    """Open a folder in transformers' or in the original repository's layout.

    Raises:
        UserError: It is no such checkpoint, a file is missing, or a weight has an unknown name.
    """
    stored = read_json(folder / "config.json")
    original = stored.get("model_type") == "videollama3_qwen2"
    with reading(folder / "config.json"):
        config = original_config(stored) if original else transformers_config(stored, folder)
        dtype = getattr(torch, str(stored.get("dtype") or stored.get("torch_dtype") or "float32"))
    table = ORIGINAL if original else TRANSFORMERS
    # The original's local training format doubles a prefix.
    pairs = ((_undoubled(name), tensor) for name, tensor in tensors(folder))
    return StoredModel(config, dtype, ((rename(name, table, back=True), tensor) for name, tensor in pairs))


def save_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write model*.safetensors in transformers' layout, in shards of at most 5 GB.

    Args:
        weights: By their names in `VideoLLaMA3`, without tied ones.
        folder: An existing folder. Weights that an earlier call wrote there are deleted.
    """
    from huggingface_hub import save_torch_state_dict

    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()  # readers take every shard of the folder
    renamed = {rename(name, TRANSFORMERS): weight for name, weight in weights.items()}
    save_torch_state_dict(renamed, folder, max_shard_size="5GB", metadata={"format": "pt"})
    readable_by_umask(folder)


def readable_by_umask(folder: Path) -> None:
    """Give a folder's safetensors the mode of any new file: the library writes them for their owner alone."""
    files = list(folder.glob("*.safetensors"))
    usual = folder / ".mode"
    usual.touch()
    for file in files:
        shutil.copymode(usual, file)
    usual.unlink()


def encoder_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights of a vision encoder alone, SigLIP or VL3-SigLIP-NaViT, by their names in `VisionEncoder`."""
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


def fill(module: nn.Module, weights: Iterator[tuple[str, Tensor]], folder: Path, tied: Collection[str]) -> None:
    """Copy weights in place, each into its own type and device; every one must have its counterpart.

    Raises:
        UserError: One is missing, unknown or of another shape.
    """
    targets = module.state_dict(keep_vars=True)
    missing = set(targets).difference(tied)
    with torch.no_grad():
        for name, tensor in weights:
            if name not in targets or targets[name].shape != tensor.shape:
                shape = tuple(targets[name].shape) if name in targets else "nothing"
                raise UserError(f"{folder}: {name} is {tuple(tensor.shape)} where {shape} belongs: another model?")
            targets[name].copy_(tensor)
            missing.discard(name)
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, {min(missing)} among them: copy all its files")


def _undoubled(name: str) -> str:
    return name.replace("model.vision_encoder.vision_encoder.", "model.vision_encoder.", 1)
