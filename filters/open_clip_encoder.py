"""The encoders of open_clip: named ones, folders and models of the hub."""

from __future__ import annotations

import builtins
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.precision import Precision, device_and_dtype
from core.pretrained import (
    check_available,
    hub_file,
    is_local,
    loading,
    package_folder,
    require,
    sha256,
)

if TYPE_CHECKING:
    import torch

LICENCES = {"ViT-L-14/openai": "MIT", "ViT-B-32/openai": "MIT"}
"""Of the weights of these encoders. Others are not known."""

_CONFIG = "open_clip_config.json"
_HUB = "hf-hub:"
_WEIGHTS = (".safetensors", ".bin", ".pth")  # files that open_clip loads from a folder


@dataclass(frozen=True)
class OpenClipModel:
    """An open_clip model on its device.

    Attributes:
        network: The model, in evaluation mode.
        transform: Its preprocessing, from a PIL image to a normalised tensor.
        device, dtype: Where it runs, and its float type.
        provenance: Hash of the weights, float type and versions of the packages.
    """

    network: Any
    transform: Any
    device: torch.device
    dtype: torch.dtype
    provenance: Mapping[str, object]

    @classmethod
    def load(cls, encoder: str, what: str, precision: Precision = "auto") -> OpenClipModel:
        """Load an encoder by name or path. `what` names the stage in errors.

        Raises:
            UserError: The encoder cannot be loaded; the text gives the reason.
        """
        check_encoder(encoder, what)
        text_tower = _text_tower_type(encoder, what)
        import open_clip

        architecture, weights = _parts(encoder)
        device, dtype = device_and_dtype(text_tower, precision)
        with loading(encoder, what):
            file = _weights_file(encoder)
            known = open_clip.get_pretrained_cfg(architecture, weights) if weights else {}
            # OpenAI's and some other weights were trained with an approximate GELU. The architecture's name does not
            # say so: open_clip would only warn and compute different embeddings.
            network, _, transform = open_clip.create_model_and_transforms(
                architecture, weights or None, force_quick_gelu=bool(known.get("quick_gelu")), weights_only=True
            )
            network = network.to(device, dtype).eval()
        provenance = {"weights": sha256([file]), "dtype": str(dtype).removeprefix("torch.")}
        versions = {"open_clip": version("open_clip_torch"), "torch": version("torch")}
        return cls(network, transform, device, dtype, provenance | versions)


def tokenizer(encoder: str, what: str) -> Callable[[list[str]], torch.Tensor]:
    """Return an encoder's tokenizer: texts to tokens, (texts, context).

    Raises:
        UserError: It cannot be loaded.
    """
    import open_clip

    with loading(encoder, what):
        # This overrides `tokenizer_kwargs` in an untrusted configuration.
        safe = {"trust_remote_code": False} if _hugging_face(encoder).get("hf_tokenizer_name") else {}
        tokenize: Callable[[list[str]], torch.Tensor] = open_clip.get_tokenizer(_parts(encoder)[0], **safe)
    return tokenize


@lru_cache
def dimensions(encoder: str) -> int:
    """Return the dimensions of an encoder's embeddings, from the model's configuration alone.

    Raises:
        UserError: There is no such model.
    """
    with loading(encoder, "encoder"):
        return int(_model_config(encoder)["embed_dim"])


def check_encoder(encoder: str, what: str) -> None:
    """Check that an encoder is available, without loading it.

    Raises:
        UserError: It is not available; the text says what is missing and how to get it.
    """
    require("open_clip", "models", what)
    architecture, weights = _parts(encoder)
    if architecture.startswith("local-dir:"):
        folder = architecture.removeprefix("local-dir:")
        check_available(folder, what, _CONFIG)
        if not any(file.suffix in _WEIGHTS for file in Path(folder).iterdir()):
            raise UserError(f"{what}: {encoder}: the folder has no open_clip_model.safetensors or other weights")
    elif architecture.startswith(_HUB):
        hub_file(architecture.removeprefix(_HUB), _CONFIG, what)
    else:
        _check_named_weights(encoder, architecture, weights, what)


def weights_of(encoder: str) -> str:
    """Return where an encoder's weights are: a folder, or a repository of the hub; the encoder if nobody knows."""
    architecture, weights = _parts(encoder)
    for prefix in ("local-dir:", _HUB):
        if architecture.startswith(prefix):
            return architecture.removeprefix(prefix)
    known = _named_weights().get_pretrained_cfg(architecture, weights)
    return os.path.split(str(known.get("hf_hub") or ""))[0] or encoder


def _check_named_weights(encoder: str, architecture: str, weights: str, what: str) -> None:
    from huggingface_hub import try_to_load_from_cache

    named = _named_weights()
    known = named.get_pretrained_cfg(architecture, weights)
    if not known:
        tags = ", ".join(named.list_pretrained_tags_by_model(architecture)) or "none"
        raise UserError(f"{what}: {encoder}: there are no weights {weights!r} for {architecture}, only {tags}")
    repository, file = os.path.split(str(known.get("hf_hub") or ""))
    names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if repository and not any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        hub_file(repository, file or _CONFIG, what)


@lru_cache
def _named_weights() -> Any:
    """Return open_clip's module of named weights, imported by itself: open_clip imports torch, which takes seconds."""
    package = ModuleType("_open_clip_named_weights")
    package.__path__ = [str(package_folder("open_clip"))]
    sys.modules[package.__name__] = package
    spec = find_spec(f"{package.__name__}.pretrained")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import_without_torch}
    spec.loader.exec_module(module)
    return module


def _import_without_torch(name: str, *arguments: Any) -> Any:
    """Import a module for open_clip, which does without `safetensors.torch` if it is not there."""
    if name == "safetensors.torch":
        raise ImportError(name)
    return builtins.__import__(name, *arguments)


def _text_tower_type(encoder: str, what: str) -> str:
    """Return the `model_type` of a text tower of transformers, such as `mt5`; empty for a tower of open_clip.

    Raises:
        UserError: The text tower needs its own code (`auto_map`). transformers would ask on stdin whether to run it.
    """
    tower = _hugging_face(encoder).get("hf_model_name")
    if not tower:
        return ""
    from transformers import PretrainedConfig

    with loading(encoder, what):
        config, _ = PretrainedConfig.get_config_dict(tower)
    if "auto_map" in config:
        raise UserError(f"{what}: {encoder}: its text tower {tower} needs code of its own, which is never run")
    return str(config.get("model_type", ""))


def _hugging_face(encoder: str) -> dict[str, Any]:
    """Return an encoder's `text_cfg`; transformers opens its `hf_model_name` and `hf_tokenizer_name`."""
    text = _model_config(encoder).get("text_cfg")
    return dict(text) if isinstance(text, dict) else {}


def _model_config(encoder: str) -> dict[str, Any]:
    """Return open_clip's `model_cfg` of an encoder.

    Raises:
        UserError: There is no such model.
    """
    architecture, _ = _parts(encoder)
    if architecture.startswith("local-dir:"):
        path = Path(architecture.removeprefix("local-dir:")) / _CONFIG
        if not path.is_file():
            raise UserError(f"encoder {encoder}: the folder has no {_CONFIG}; give an open_clip model folder")
    elif architecture.startswith(_HUB):
        path = Path(hub_file(architecture.removeprefix(_HUB), _CONFIG, "clip"))
    else:
        require("open_clip", "models", f"the encoder {encoder}")
        path = package_folder("open_clip") / "model_configs" / f"{architecture}.json"
        if not path.is_file():
            raise UserError(f"encoder {encoder}: open_clip knows no architecture {architecture}; see open_clip's list")
    with loading(encoder, "encoder"):
        config = json.loads(path.read_text())
        return dict(config.get("model_cfg", config))


def _weights_file(encoder: str) -> str:
    import open_clip
    from open_clip.factory import _find_checkpoint_in_dir
    from open_clip.pretrained import download_pretrained_from_hf

    architecture, weights = _parts(encoder)
    if architecture.startswith("local-dir:"):
        # The file that open_clip itself chooses, so that the hash belongs to the loaded weights.
        file = _find_checkpoint_in_dir(Path(architecture.removeprefix("local-dir:")))
        if not file:
            raise OSError("the folder has no open_clip_model.safetensors")
        return str(file)
    if architecture.startswith(_HUB):
        return str(download_pretrained_from_hf(architecture.removeprefix(_HUB)))
    return str(open_clip.download_pretrained(open_clip.get_pretrained_cfg(architecture, weights)))


def _parts(encoder: str) -> tuple[str, str]:
    """Split an encoder into open_clip's model name and weights (empty for folders and hub models)."""
    if encoder.startswith((_HUB, "local-dir:")):
        return encoder, ""
    if is_local(encoder):
        return f"local-dir:{os.path.expanduser(encoder)}", ""
    architecture, slash, weights = encoder.partition("/")
    if not slash or not weights or weights.startswith("/"):
        raise UserError(f"encoder {encoder!r} is no folder and not ARCHITECTURE/WEIGHTS, such as ViT-L-14/openai")
    return architecture, weights
