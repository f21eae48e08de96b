"""CLIP embeddings by open_clip: unit vectors, computed once per image and once per text.

Later stages (aesthetic score, similarity, clusters, duplicates) read the stored embeddings.
CLIP: Radford et al. 2021, arXiv 2103.00020. The open weights: Cherti et al. 2023, arXiv 2212.07143.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL.Image import Image

from core.errors import UserError
from core.pretrained import check_available, device_and_dtype, hub_file, is_local, loading, require, sha256
from core.stages import Facts, ImageFacts, ImageStage, LoadedStage
from manifests.embeddings import embedding_column, from_matrix

_CONFIG = "open_clip_config.json"
_HUB = "hf-hub:"
_LICENCES = {"ViT-L-14/openai": "MIT", "ViT-B-32/openai": "MIT"}


class Clip(ImageStage):
    """Image embeddings by CLIP's image tower.

    Attributes:
        encoder: `ARCHITECTURE/WEIGHTS` as open_clip lists them (`ViT-L-14/openai`, `ViT-B-32/laion2b_s34b_b79k`), a
            folder with `open_clip_config.json` and the weights, or `hf-hub:ORGANISATION/MODEL`. A file of weights alone
            is not accepted: it does not say which activation and preprocessing it was trained with.
        draft: Decode large JPEGs at a reduced scale, which is faster; never below twice the model's side.
            `benchmarks/draft.py` measures how much that changes an embedding. False: open_clip's own transform.
    """

    name: ClassVar = "clip"
    gpus: ClassVar = 1
    encoder: str
    draft: bool = True

    @property
    def writes(self) -> pa.Schema:
        doc = "CLIP embedding of the image, of length 1"
        return pa.schema([embedding_column("image_embedding", dimensions(self.encoder), self.encoder, doc)])

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.encoder: _LICENCES.get(self.encoder)}

    def check_available(self) -> None:
        check_encoder(self.encoder, self.name)

    def load(self) -> ImageTower:
        return ImageTower(Model.load(self.encoder, self.name), self.draft)


class ClipText(LoadedStage):
    """Text embeddings by CLIP's text tower, of the coarse caption and, if there is one, of the alt text.

    Attributes:
        encoder: As for `clip`; `similarity` needs the same encoder for both.
    """

    name: ClassVar = "clip_text"
    reads: ClassVar = ("coarse_caption", "alt_text")
    gpus: ClassVar = 1
    encoder: str

    @property
    def writes(self) -> pa.Schema:
        return text_columns(dimensions(self.encoder), self.encoder)

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.encoder: _LICENCES.get(self.encoder)}

    def check_available(self) -> None:
        check_encoder(self.encoder, self.name)

    def load(self) -> TextTower:
        import open_clip

        model = Model.load(self.encoder, self.name)
        with loading(self.encoder, self.name):
            # This overrides `tokenizer_kwargs` in an untrusted configuration.
            safe = {"trust_remote_code": False} if _hugging_face(self.encoder).get("hf_tokenizer_name") else {}
            tokenize = open_clip.get_tokenizer(_parts(self.encoder)[0], **safe)
        return TextTower(model, tokenize, dimensions(self.encoder))


class Model:
    """An open_clip model on its device, with its transform and its provenance."""

    def __init__(self, network: Any, transform: Any, device: Any, dtype: Any, provenance: Mapping[str, object]) -> None:
        self.network, self.transform, self.provenance = network, transform, provenance
        self.device, self.dtype = device, dtype

    @classmethod
    def load(cls, encoder: str, what: str) -> Model:
        """Load an encoder by name or path. `what` names the stage in errors.

        Raises:
            UserError: The encoder cannot be loaded; the text gives the reason.
        """
        check_encoder(encoder, what)
        _check_text_tower(encoder, what)
        import open_clip

        architecture, weights = _parts(encoder)
        device, dtype = device_and_dtype()
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


class ImageTower(ImageFacts):
    """`ImageFacts` of `clip`: threads prepare uint8 pixels; normalisation and encoding run on the device."""

    def __init__(self, model: Model, draft: bool) -> None:
        import torch

        self._model, self.provenance = model, model.provenance
        # Split the transform: the steps on PIL images run in threads, the normalisation runs on the device.
        *on_image, _, normalize = model.transform.transforms
        self._on_image = on_image
        self._crops = any(type(step).__name__ == "CenterCrop" for step in on_image)
        mean, std = (torch.tensor(v, device=model.device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std))
        self._mean, self._std = mean, std
        size = model.network.visual.image_size
        self.side = 2 * max(size if isinstance(size, tuple | list) else (size,)) if draft else None

    def prepare(self, image: Image) -> npt.NDArray[np.uint8]:
        """Resize and crop as open_clip does; uint8 of shape (side, side, 3)."""
        # A strip of 1 × 20,000 pixels would be enlarged to gigabytes before its centre is cropped: crop it before too.
        image = _middle(image) if self._crops else image
        for step in self._on_image:
            image = step(image)
        return np.asarray(image)

    def __call__(self, inputs: Sequence[npt.NDArray[np.uint8]]) -> pa.Table:
        import torch

        model = self._model
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(inputs)).to(model.device, non_blocking=True)
            scaled = pixels.permute(0, 3, 1, 2).float() / 255
            vectors = model.network.encode_image(((scaled - self._mean) / self._std).to(model.dtype))
        embeddings, errors = from_matrix(vectors.float().cpu().numpy())
        return pa.table({"image_embedding": embeddings, "error": pa.array(errors, pa.string())})


def _middle(image: Image) -> Image:
    """Crop the centre, so that the longer side is at most four times the shorter side."""
    width, height = image.size
    most = 4 * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


class TextTower(Facts):
    """`Facts` of `clip_text`."""

    def __init__(self, model: Model, tokenize: Callable[[list[str]], Any], size: int) -> None:
        self._model, self.provenance, self._tokenize, self._size = model, model.provenance, tokenize, size

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return raw text embeddings, (texts, dimensions). Texts beyond the tower's context are cut, as in training."""
        import torch

        with torch.inference_mode():
            tokens = self._tokenize(list(texts)).to(self._model.device)
            vectors: npt.NDArray[np.float32] = self._model.network.encode_text(tokens).float().cpu().numpy()
        return vectors

    def __call__(self, batch: pa.Table) -> pa.Table:
        return embed_texts(batch, self.encode, self._size)


def text_columns(size: int, encoder: str) -> pa.Schema:
    """Return the columns of a stage that embeds texts."""
    return pa.schema(
        [
            embedding_column("text_embedding", size, encoder, "The coarse caption's embedding, of length 1"),
            embedding_column("alt_text_embedding", size, encoder, "The alt text's, of length 1; null without alt text"),
        ]
    )


def embed_texts(batch: pa.Table, encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], size: int) -> pa.Table:
    """Return the columns of `text_columns` for the captions and alt texts of a batch, and errors.

    Args:
        batch: A table with `coarse_caption` and `alt_text`. A missing caption is an error, a missing alt text is not.
        encode: Maps texts to raw vectors, (texts, size).
        size: Dimensions of the embeddings.
    """
    captions, errors = _embed(batch["coarse_caption"].to_pylist(), encode, size)
    # A row that failed has no facts, so it needs no vector of its alt text either.
    known = [alt if error is None else None for alt, error in zip(batch["alt_text"].to_pylist(), errors, strict=True)]
    alts, _ = _embed(known, encode, size)
    columns = {"text_embedding": captions, "alt_text_embedding": alts, "error": pa.array(errors, pa.string())}
    return pa.table(columns)


def _embed(
    texts: Sequence[str | None], encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], size: int
) -> tuple[pa.Array, list[str | None]]:
    """Return the embeddings of texts, and errors; an empty text gets null and an error."""
    rows = [row for row, text in enumerate(texts) if text and text.strip()]
    errors: list[str | None] = ["no text: the caption is empty"] * len(texts)
    if not rows:
        return pa.nulls(len(texts), pa.list_(pa.float16(), size)), errors
    embeddings, flaws = from_matrix(encode([texts[row] or "" for row in rows]))
    for row, flaw in zip(rows, flaws, strict=True):
        errors[row] = flaw
    places = dict(zip(rows, range(len(rows)), strict=True))
    return embeddings.take(pa.array([places.get(row) for row in range(len(texts))], pa.int64())), errors


def _hugging_face(encoder: str) -> dict[str, Any]:
    """Return an encoder's `text_cfg`; transformers opens its `hf_model_name` and `hf_tokenizer_name`."""
    text = _model_config(encoder).get("text_cfg")
    return dict(text) if isinstance(text, dict) else {}


def _check_text_tower(encoder: str, what: str) -> None:
    """Refuse a text tower with `auto_map`: transformers would ask on stdin whether to run its code.

    Raises:
        UserError: The text tower needs its own code.
    """
    if tower := _hugging_face(encoder).get("hf_model_name"):
        from transformers import PretrainedConfig

        with loading(encoder, what):
            config, _ = PretrainedConfig.get_config_dict(tower)
        if "auto_map" in config:
            raise UserError(f"{what}: {encoder}: its text tower {tower} needs code of its own, which is never run")


@lru_cache
def dimensions(encoder: str) -> int:
    """Return the dimensions of an encoder's embeddings, from the model's configuration alone.

    Raises:
        UserError: There is no such model.
    """
    with loading(encoder, "encoder"):
        return int(_model_config(encoder)["embed_dim"])


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
        spec = find_spec("open_clip")
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent / "model_configs" / f"{architecture}.json"
        if not path.is_file():
            raise UserError(f"encoder {encoder}: open_clip knows no architecture {architecture}; see open_clip's list")
    with loading(encoder, "encoder"):
        config = json.loads(path.read_text())
        return dict(config.get("model_cfg", config))


def check_encoder(encoder: str, what: str) -> None:
    """Check that an encoder is available, without loading it.

    Raises:
        UserError: It is not available; the text says what is missing and how to get it.
    """
    require("open_clip", "models", what)
    architecture, weights = _parts(encoder)
    if architecture.startswith("local-dir:"):
        check_available(architecture.removeprefix("local-dir:"), what, _CONFIG)
        with loading(encoder, what):
            _weights_file(encoder)
    elif architecture.startswith(_HUB):
        hub_file(architecture.removeprefix(_HUB), _CONFIG, what)
    else:
        _check_named_weights(encoder, architecture, weights, what)


def _check_named_weights(encoder: str, architecture: str, weights: str, what: str) -> None:
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    known = open_clip.get_pretrained_cfg(architecture, weights)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UserError(f"{what}: {encoder}: there are no weights {weights!r} for {architecture}, only {tags}")
    repository, file = os.path.split(str(known.get("hf_hub") or ""))
    names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if repository and not any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        hub_file(repository, file or _CONFIG, what)


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
