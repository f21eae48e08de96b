"""Aesthetic score: LAION's predictors on stored CLIP embeddings. They need no pixels and no GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import UserError
from core.pretrained import hub_file, loading, sha256
from core.stages import Facts, LoadedStage
from manifests.embeddings import encoder_of, to_matrix
from manifests.schemas import column

Layers = list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]

RANGES = {"laion-v1": (0.0, 10.0), "laion-v2": (1.0, 10.0)}
"""The rating scale of each predictor's training data. COYO-700M's scores by v2 range from 1.17 to 8.08, mean 4.77."""

HUB = {"laion-v2": ("ttj/sac-logos-ava1-l14-linearMSE", "model.safetensors")}
"""Hub repository and file of the published weights. Those of v1 are only on github.com/LAION-AI/aesthetic-predictor."""


_LICENCES = {"laion-v1": "MIT", "laion-v2": "Apache-2.0"}


class Aesthetic(LoadedStage):
    """The aesthetic rating that people would give an image, predicted from its CLIP embedding.

    The second step of VL3-Syn7M drops images with a low score (VideoLLaMA 3, arXiv 2501.13106, section 2.3); the paper
    names neither the model nor a threshold.

    Attributes:
        predictor: `laion-v1`: one linear layer (LAION-Aesthetics V1). `laion-v2`: five layers on top of CLIP ViT-L/14,
            trained on SAC, Logos and AVA (christophschuhmann/improved-aesthetic-predictor).
        weights: The head, a `.safetensors` or `.pth` file. None: downloaded from the hub (`laion-v2` only).
        encoder: The CLIP that the head was trained on. Scores from another encoder's embeddings are meaningless.
    """

    name: ClassVar = "aesthetic"
    driver_rows: ClassVar = 100_000
    per_frame: ClassVar = True
    reads: ClassVar = ("image_embedding",)
    packages: ClassVar = {"torch": "models"}
    predictor: Literal["laion-v1", "laion-v2"] = "laion-v2"
    weights: str | None = None
    encoder: str = "ViT-L-14/openai"

    @property
    def writes(self) -> pa.Schema:
        low, high = RANGES[self.predictor]
        doc = f"Aesthetic score by {self.predictor}; higher is more beautiful"
        return pa.schema([column("aesthetic", pa.float32(), doc, low, high)])

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.predictor: _LICENCES[self.predictor]}

    @property
    def model_files(self) -> Mapping[str, str]:
        repository, _ = HUB.get(self.predictor, (self.predictor, ""))
        return {self.predictor: self.weights or repository}

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        encoder = encoder_of(inputs["image_embedding"])
        if encoder != self.encoder:
            raise UserError(
                f"the predictor was trained on {self.encoder} and the embeddings are by {encoder}; "
                "let an earlier stage compute those of the former, or give the predictor's own `encoder`"
            )

    def check_available(self) -> None:
        super().check_available()
        self._file()

    def load(self) -> AestheticHead:
        super().check_available()
        file = self._file()
        with loading(str(file), self.name):
            layers, relu = read_head(file)
            if (len(layers) == 1) != (self.predictor == "laion-v1"):
                raise UserError(f"a head of {len(layers)} layers is not one of {self.predictor}")
            return AestheticHead(layers if relu else [fold(layers)], {"weights": sha256([file])})

    def _file(self) -> Path:
        if self.weights is not None:
            path = Path(self.weights).expanduser()
            if not path.is_file():
                raise UserError(f"aesthetic: weights {self.weights}: no such file; fetch the head of {self.predictor}")
            return path
        if self.predictor not in HUB:
            raise UserError(
                "aesthetic: laion-v1 has no repository on the hub; fetch sa_0_4_vit_l_14_linear.pth of "
                "github.com/LAION-AI/aesthetic-predictor and give its path as `weights`"
            )
        return Path(hub_file(*HUB[self.predictor], self.name))


class AestheticHead(Facts):
    """`Facts` of `aesthetic`: a dot product, or layers with ReLU between them."""

    def __init__(self, layers: Layers, provenance: Mapping[str, object]) -> None:
        self._layers, self.provenance = layers, provenance

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors, errors = to_matrix(batch["image_embedding"])
        width = self._layers[0][0].shape[1]
        if vectors.shape[1] != width:
            raise UserError(f"aesthetic: the head takes {width} numbers and the embeddings have {vectors.shape[1]}")
        scores = score(self._layers, vectors)
        masked = pa.array(scores.astype(np.float32), mask=np.array([e is not None for e in errors]))
        return pa.table({"aesthetic": masked, "error": pa.array(errors, pa.string())})


def read_head(file: Path) -> tuple[Layers, bool]:
    """Return the layers of a head, and whether there is a ReLU between them, which follows from the file's keys.

    Raises:
        UserError: The keys do not belong to a known predictor.
    """
    state = _state(file)
    if set(state) == {"weight", "bias"}:  # v1: one layer
        return [_layer(state, "")], False
    numbers = sorted({int(n) for key in state for n in re.findall(r"^layers\.(\d+)\.weight$", key)})
    if len(state) != 2 * len(numbers) or numbers not in ([0, 2, 4, 6, 7], [0, 3, 6, 9, 11]):
        raise UserError(f"no head of laion-v1 or laion-v2: its keys are {', '.join(sorted(state)[:12])}")
    # Dropout layers have a number too; in the variant with ReLU, so do the ReLU layers.
    return [_layer(state, f"layers.{n}.") for n in numbers], numbers == [0, 3, 6, 9, 11]


def fold(layers: Layers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Fold linear layers without activations into one layer: W2(W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)."""
    weight, bias = layers[0]
    for above, offset in layers[1:]:
        weight, bias = above @ weight, above @ bias + offset
    return weight, bias


def score(layers: Layers, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the scores (rows,) of unit vectors (rows, width), with a ReLU between the layers."""
    values = vectors.astype(np.float64)
    for position, (weight, bias) in enumerate(layers):
        values = values @ weight.T + bias
        if position < len(layers) - 1:
            values = np.maximum(values, 0)
    return values[:, 0]


def _state(file: Path) -> dict[str, Any]:
    """Return the tensors of a file. torch, whose import takes seconds, reads only what numpy cannot."""
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, "np") as tensors:
            if all(tensors.get_slice(key).get_dtype() != "BF16" for key in tensors.keys()):  # noqa: SIM118
                return {key: tensors.get_tensor(key).astype(np.float32) for key in tensors.keys()}  # noqa: SIM118
    import torch
    from safetensors.torch import load_file

    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    return {key: tensor.float().numpy() for key, tensor in state.items()}


def _layer(state: Mapping[str, Any], prefix: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    weight, bias = (np.asarray(state[f"{prefix}{n}"], np.float64) for n in ("weight", "bias"))
    if weight.ndim != 2:
        raise UserError(f"{prefix}weight has {weight.ndim} dimensions instead of 2")
    return weight, bias
