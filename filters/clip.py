"""CLIP through open_clip: the image tower once per image, the text tower once per text, both as unit vectors.

Everything else that wants to know how an image looks (aesthetic score, similarity, clusters, duplicates) reads the
stored embeddings. CLIP: Radford et al. 2021, arXiv 2103.00020. The open weights: Cherti et al. 2023, arXiv 2212.07143.
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
from pydantic import BaseModel, ConfigDict

from core.errors import UserError
from filters.weights import hub_file, is_local, loading, place, require, sha256
from filters.weights import ready as folder_ready
from manifests.embeddings import embedding_column, from_matrix

_CONFIG = "open_clip_config.json"
_HUB = "hf-hub:"


class Clip(BaseModel):
    """The image tower.

    Attributes:
        encoder: `ARCHITECTURE/WEIGHTS` as open_clip lists them (`ViT-L-14/openai`, `ViT-B-32/laion2b_s34b_b79k`), a
            folder with `open_clip_config.json` and the weights, or `hf-hub:ORGANISATION/MODEL`. A file of weights alone
            does not tell with which activation and preprocessing they were trained, so it is none of these.
        draft: Decode large JPEGs at a reduced scale, never below twice the model's side: a fraction of the work.
            `benchmarks/draft.py` measures how far that moves an embedding. False: open_clip's own transform.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar = "clip"
    version: ClassVar = 1
    reads: ClassVar = ("image",)
    gpu: ClassVar = True
    encoder: str
    draft: bool = True

    @property
    def writes(self) -> pa.Schema:
        doc = "CLIP's image embedding, of length 1"
        return pa.schema([embedding_column("image_embedding", dimensions(self.encoder), self.encoder, doc)])

    def ready(self) -> None:
        encoder_ready(self.encoder, self.name)

    def load(self) -> ImageTower:
        return ImageTower(Model.load(self.encoder, self.name), self.draft)


class ClipText(BaseModel):
    """The text tower, over the coarse caption and, where there is one, over the text that came with the image.

    Attributes:
        encoder: As for `clip`; the two must be the same for a similarity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar = "clip_text"
    version: ClassVar = 1
    reads: ClassVar = ("coarse_caption", "alt_text")
    gpu: ClassVar = True
    encoder: str

    @property
    def writes(self) -> pa.Schema:
        return text_columns(dimensions(self.encoder), self.encoder)

    def ready(self) -> None:
        encoder_ready(self.encoder, self.name)

    def load(self) -> TextTower:
        import open_clip

        model = Model.load(self.encoder, self.name)
        with loading(self.encoder, self.name):
            # What a foreign configuration may have in `tokenizer_kwargs` is overruled.
            safe = {"trust_remote_code": False} if _hugging_face(self.encoder).get("hf_tokenizer_name") else {}
            tokenize = open_clip.get_tokenizer(_parts(self.encoder)[0], **safe)
        return TextTower(model, tokenize, dimensions(self.encoder))


class Model:
    """An open_clip model on its device, with its transform and what goes into the provenance."""

    def __init__(self, network: Any, transform: Any, device: Any, dtype: Any, made_by: Mapping[str, object]) -> None:
        self.network, self.transform, self.made_by = network, transform, made_by
        self.device, self.dtype = device, dtype

    @classmethod
    def load(cls, encoder: str, what: str) -> Model:
        """Load by name or path.

        Raises:
            UserError: It cannot be loaded, with the reason.
        """
        encoder_ready(encoder, what)
        _check_text_tower(encoder, what)
        import open_clip

        architecture, weights = _parts(encoder)
        device, dtype = place()
        with loading(encoder, what):
            file = _weights_file(encoder)
            known = open_clip.get_pretrained_cfg(architecture, weights) if weights else {}
            # OpenAI's and some other weights were trained with an approximate GELU, which the architecture's name
            # alone does not say; open_clip would warn and compute other embeddings.
            network, _, transform = open_clip.create_model_and_transforms(
                architecture, weights or None, force_quick_gelu=bool(known.get("quick_gelu")), weights_only=True
            )
            network = network.to(device, dtype).eval()
        made_by = {"weights": sha256([file]), "dtype": str(dtype).removeprefix("torch.")}
        versions = {"open_clip": version("open_clip_torch"), "torch": version("torch")}
        return cls(network, transform, device, dtype, made_by | versions)


class ImageTower:
    """`ImageFacts` of `clip`: uint8 pixels from threads, normalised and encoded on the device."""

    def __init__(self, model: Model, draft: bool) -> None:
        import torch

        self._model, self.made_by = model, model.made_by
        # The transform in two: what works on PIL images in the threads, and the normalisation, on the device.
        *on_image, _, normalize = model.transform.transforms
        self._on_image = on_image
        self._crops = any(type(step).__name__ == "CenterCrop" for step in on_image)
        mean, std = (torch.tensor(v, device=model.device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std))
        self._mean, self._std = mean, std
        size = model.network.visual.image_size
        self.side = 2 * max(size if isinstance(size, tuple | list) else (size,)) if draft else None

    def prepare(self, image: Image) -> npt.NDArray[np.uint8]:
        """Resized and cropped as open_clip does, (side, side, 3) uint8."""
        # A strip of 1 × 20,000 pixels would be enlarged to gigabytes before its middle is cut out: cut it twice.
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
    """At most four times as long as wide, around the middle."""
    width, height = image.size
    most = 4 * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


class TextTower:
    """`Facts` of `clip_text`."""

    def __init__(self, model: Model, tokenize: Callable[[list[str]], Any], size: int) -> None:
        self._model, self.made_by, self._tokenize, self._size = model, model.made_by, tokenize, size

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Raw text embeddings, (texts, dimensions); what is longer than the tower's context is cut, as in training."""
        import torch

        with torch.inference_mode():
            tokens = self._tokenize(list(texts)).to(self._model.device)
            vectors: npt.NDArray[np.float32] = self._model.network.encode_text(tokens).float().cpu().numpy()
        return vectors

    def __call__(self, batch: pa.Table) -> pa.Table:
        return embed_texts(batch, self.encode, self._size)


def text_columns(size: int, encoder: str) -> pa.Schema:
    """What a text tower writes."""
    return pa.schema(
        [
            embedding_column("text_embedding", size, encoder, "The coarse caption's embedding, of length 1"),
            embedding_column("alt_text_embedding", size, encoder, "The alt text's, of length 1; null without alt text"),
        ]
    )


def embed_texts(batch: pa.Table, encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], size: int) -> pa.Table:
    """The columns of `text_columns` for the captions and alt texts of a batch.

    Args:
        batch: With `coarse_caption` and `alt_text`. A row without a caption has an error, one without alt text has not.
        encode: Texts to raw vectors of length `size`.
        size: Dimensions of the space.
    """
    captions, errors = _embed(batch["coarse_caption"].to_pylist(), encode, size)
    # A row that failed has no facts, so it needs no vector of its alt text either.
    known = [alt if error is None else None for alt, error in zip(batch["alt_text"].to_pylist(), errors, strict=True)]
    alts, _ = _embed(known, encode, size)
    told = {"text_embedding": captions, "alt_text_embedding": alts, "error": pa.array(errors, pa.string())}
    return pa.table(told)


def _embed(
    texts: Sequence[str | None], encode: Callable[[Sequence[str]], npt.NDArray[np.float32]], size: int
) -> tuple[pa.Array, list[str | None]]:
    """Null and an error for what holds no text."""
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
    """`text_cfg` of an encoder: `hf_model_name` and `hf_tokenizer_name` are opened by transformers."""
    text = _model_config(encoder).get("text_cfg")
    return dict(text) if isinstance(text, dict) else {}


def _check_text_tower(encoder: str, what: str) -> None:
    """See that open_clip need not ask on stdin whether to run code: transformers does, for a tower with `auto_map`.

    Raises:
        UserError: There is code.
    """
    if tower := _hugging_face(encoder).get("hf_model_name"):
        from transformers import PretrainedConfig

        with loading(encoder, what):
            config, _ = PretrainedConfig.get_config_dict(tower)
        if "auto_map" in config:
            raise UserError(f"{what}: {encoder}: its text tower {tower} needs code of its own, which is never run")


@lru_cache
def dimensions(encoder: str) -> int:
    """Length of the embeddings, by the model's configuration alone.

    Raises:
        UserError: There is no such model.
    """
    with loading(encoder, "encoder"):
        return int(_model_config(encoder)["embed_dim"])


def _model_config(encoder: str) -> dict[str, Any]:
    """open_clip's `model_cfg`.

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


def encoder_ready(encoder: str, what: str) -> None:
    """See that an encoder is to be had; nothing is loaded.

    Raises:
        UserError: With what is missing and how to get it.
    """
    require("open_clip", "models", what)
    architecture, weights = _parts(encoder)
    if architecture.startswith("local-dir:"):
        folder_ready(architecture.removeprefix("local-dir:"), what, _CONFIG)
        with loading(encoder, what):
            _weights_file(encoder)
    elif architecture.startswith(_HUB):
        hub_file(architecture.removeprefix(_HUB), _CONFIG, what)
    else:
        _named_weights_ready(encoder, architecture, weights, what)


def _named_weights_ready(encoder: str, architecture: str, weights: str, what: str) -> None:
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
        # open_clip's own choice among several: what is hashed is what is loaded.
        found = _find_checkpoint_in_dir(Path(architecture.removeprefix("local-dir:")))
        if not found:
            raise OSError("the folder has no open_clip_model.safetensors")
        return str(found)
    if architecture.startswith(_HUB):
        return str(download_pretrained_from_hf(architecture.removeprefix(_HUB)))
    return str(open_clip.download_pretrained(open_clip.get_pretrained_cfg(architecture, weights)))


def _parts(encoder: str) -> tuple[str, str]:
    """open_clip's model name and weights."""
    if encoder.startswith((_HUB, "local-dir:")):
        return encoder, ""
    if is_local(encoder):
        return f"local-dir:{os.path.expanduser(encoder)}", ""
    architecture, slash, weights = encoder.partition("/")
    if not slash or not weights or weights.startswith("/"):
        raise UserError(f"encoder {encoder!r} is no folder and not ARCHITECTURE/WEIGHTS, such as ViT-L-14/openai")
    return architecture, weights
