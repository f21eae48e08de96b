"""Stages that take their time and write down what they compute, so that a test finds them at work and counts the work.

Before they compute rows, they append a line to a file, the number of rows and the process id of the worker's raylet,
and sleep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL.Image import Image

from clustering.duplicates import Duplicates
from clustering.kmeans import Clusters
from core.settings import Settings
from core.stages import ImageFacts, ImageStage
from manifests.embeddings import embedding_column, from_matrix

SIDE, NUMBERS = 8, 16


class Slow(Settings):
    """Settings of a slow stage; they do not change what it computes.

    Attributes:
        log: The file.
        seconds: Time for each row.
    """

    fingerprint_exclude: ClassVar = ("log", "seconds")
    log: str
    seconds: float

    def work(self, rows: int) -> None:
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{rows} {os.getppid()}\n".encode())
        os.close(file)
        time.sleep(self.seconds * rows)


class SlowEmbedding(Slow, ImageStage):
    """Embeddings by a model that is loaded in each worker: a projection of the picture's pixels."""

    name: ClassVar = "slow_embedding"
    batch_size: ClassVar = 16
    fingerprint_exclude: ClassVar = (*Slow.fingerprint_exclude, "load_seconds")
    load_seconds: float = 0

    @property
    def writes(self) -> pa.Schema:
        return pa.schema([embedding_column("image_embedding", NUMBERS, "projection", "Projection of the pixels")])

    def load(self) -> ImageFacts:
        if self.load_seconds:
            self.work(0)
            time.sleep(self.load_seconds)
        return _Projection(self)


class _Projection(ImageFacts):
    def __init__(self, stage: SlowEmbedding) -> None:
        self._stage = stage
        self._weights = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, NUMBERS))

    def prepare(self, *read: Any) -> Any:
        picture: Image = read[0]
        return np.asarray(picture.resize((SIDE, SIDE)), float).ravel() / 255 - 0.5

    def __call__(self, inputs: Sequence[Any]) -> pa.Table:
        self._stage.work(len(inputs))
        vectors, _ = from_matrix(np.stack([pixels @ self._weights for pixels in inputs]))
        return pa.table([vectors], schema=self._stage.writes)


class SlowClusters(Slow, Clusters):
    def fit(self, sample: pa.Table) -> tuple[pa.Table, dict[str, object]]:
        self.work(sample.num_rows)
        return super().fit(sample)


class SlowDuplicates(Slow, Duplicates):
    def __call__(self, table: pa.Table) -> pa.Table:
        self.work(table.num_rows)
        return super().__call__(table)
