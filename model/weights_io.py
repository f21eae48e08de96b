"""Read and write weights in transformers' layout; read the original repository's layout, and single parts.

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

import pickle
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.errors import UserError, reading
from model.config import ModelConfig
from model.config_files import PICKLE, WEIGHTS, original_config, read_json, transformers_config

Table = Mapping[str, str]
"""Maps prefixes of our names to prefixes of stored names. The first match counts."""

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
# The encoder alone as VL3-SigLIP-NaViT stores it, and SigLIP, which has two towers.
ENCODER: Table = {
    "patch_embedding.": "embeddings.patch_embedding.",
    "layers.": "encoder.layers.",
    "post_layernorm.": "post_layernorm.",
}
_UNUSED = ("embeddings.position_embedding.", "embeddings.position_ids", "head.")  # SigLIP's


def rename(name: str, table: Table, back: bool = False) -> str:
    """Return the stored name for our name of a parameter; with `back`, our name for the stored one.

    Raises:
        UserError: No prefix of the table matches.
    """
    for ours, theirs in table.items():
        old, new = (theirs, ours) if back else (ours, theirs)
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise UserError(f"unknown weight {name}: the checkpoint is of another model")


@dataclass(frozen=True)
class StoredModel:
    """A checkpoint folder, open for reading.

    Attributes:
        config: Shapes and token ids.
        dtype: Type of the stored weights.
        weights: Pairs of name in `VideoLLaMA3` and tensor, read from disk one at a time.
    """

    config: ModelConfig
    dtype: torch.dtype
    weights: Iterator[tuple[str, Tensor]]


def open_model(folder: Path) -> StoredModel:
    """Open a folder in transformers' or the original repository's layout.

    Raises:
        UserError: It is not such a checkpoint. Reading `weights` raises it for missing files and unknown names.
    """
    stored = read_json(folder / "config.json")
    original = stored.get("model_type") == "videollama3_qwen2"
    with reading(folder / "config.json"):
        config = original_config(stored, folder / "config.json") if original else transformers_config(stored, folder)
        dtype = getattr(torch, str(stored.get("dtype") or stored.get("torch_dtype") or "float32"))
    table = ORIGINAL if original else TRANSFORMERS
    # Checkpoints from the original's training code have a doubled prefix.
    pairs = ((_undoubled(name), tensor) for name, tensor in tensors(folder))
    return StoredModel(config, dtype, ((rename(name, table, back=True), tensor) for name, tensor in pairs))


EXACT = "float32"
"""Folder in an export of a training with the same model in float32, beside weights of fewer bits."""


def weights_dtype(name: str, gpu: bool) -> torch.dtype | None:
    """Return the type of this name. `auto` is bfloat16 on a GPU, and None on a CPU: the caller's choice.

    On a GPU float32 takes twice the memory and several times the time, and has no kernel for segments.
    """
    if name == "auto":
        return torch.bfloat16 if gpu else None
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def folder_in(folder: Path, dtype: torch.dtype | None) -> Path:
    """Return the folder with a checkpoint's weights: float32 ones, if they are wanted, may lie in one of their own."""
    return folder / EXACT if dtype == torch.float32 and (folder / EXACT / "config.json").is_file() else folder


def save_weights(weights: Mapping[str, Tensor], folder: Path, table: Table = TRANSFORMERS) -> None:
    """Write model*.safetensors, in shards of at most 5 GB.

    Args:
        weights: Weights by our names, without tied ones.
        folder: An existing folder. Weights from an earlier call are deleted.
        table: The layout.

    Raises:
        UserError: The system refuses the write.
    """
    from huggingface_hub import save_torch_state_dict

    exact = folder / EXACT  # it would be another model's
    for stale in (*folder.glob("model*.safetensors*"), *exact.glob("model*.safetensors*"), exact / "config.json"):
        stale.unlink(missing_ok=True)  # readers take every shard of the folder
    renamed = {rename(name, table): weight for name, weight in weights.items()}
    with storing(folder):
        save_torch_state_dict(renamed, folder, max_shard_size="5GB", metadata={"format": "pt"})
    readable_by_umask(folder)


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn what safetensors raises when the system refuses a write, such as to a full disk, into a UserError.

    Raises:
        UserError: The weights cannot be written into `folder`.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        raise UserError(f"{folder}: weights cannot be written: {' '.join(str(error).split())}") from error


def readable_by_umask(folder: Path) -> None:
    """Give a folder's safetensors the usual mode of new files: the library makes them readable by their owner only."""
    files = list(folder.glob("*.safetensors"))
    usual = folder / ".mode"
    usual.touch()
    for file in files:
        shutil.copymode(usual, file)
    usual.unlink()


def encoder_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of SigLIP's or VL3-SigLIP-NaViT's vision encoder, with their names in `VisionEncoder`."""
    for name, tensor in tensors(folder):
        inner = name.removeprefix("vision_model.").removeprefix("vision_encoder.")
        if not name.startswith(("text_model.", "logit_")) and not inner.startswith(_UNUSED):
            yield rename(inner, ENCODER, back=True), tensor


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the stored names and tensors of a folder's safetensors, or else of its pytorch_model.bin.

    Raises:
        UserError: A file is missing or broken.
    """
    for file in _weight_files(folder):
        if not file.is_file():
            raise UserError(f"{folder}: no {file.name}: copy all of the checkpoint's weights there")
        yield from _pickled(file) if file.suffix == ".bin" else _safe(file)


def _weight_files(folder: Path) -> list[Path]:
    for name in (WEIGHTS, PICKLE):
        index = folder / f"{name}.index.json"
        if index.is_file():
            with reading(index):
                return [folder / file for file in sorted(set(read_json(index)["weight_map"].values()))]
        if (folder / name).is_file():
            return [folder / name]
    raise UserError(f"{folder}: no {WEIGHTS} or {PICKLE}: copy all of the checkpoint's weights there")


def _safe(file: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, it is not a mapping
                yield name, opened.get_tensor(name)
    except SafetensorError as error:
        raise UserError(f"{file}: broken: {error}; copy it again") from error


def _pickled(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with reading(file):
            stored = torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise UserError(f"{file}: broken, or it is more than weights, and code is never run: copy it again") from error
    except (RuntimeError, EOFError) as error:
        raise UserError(f"{file}: broken: {' '.join(str(error).split())[:200]}; copy it again") from error
    if not isinstance(stored, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in stored.items()
    ):
        raise UserError(f"{file}: no table of names and tensors: save the model's state_dict there")
    yield from stored.items()


def fill(module: nn.Module, weights: Iterator[tuple[str, Tensor]], folder: Path, tied: Collection[str]) -> None:
    """Copy weights into a module in place. Its types and devices stay.

    Args:
        module: The module to fill.
        weights: Pairs of name in `module` and tensor.
        folder: Folder of the checkpoint, for messages.
        tied: Names that may be missing.

    Raises:
        UserError: A weight is missing, unknown or of another shape.
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
