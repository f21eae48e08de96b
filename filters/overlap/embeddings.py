"""Which images of a benchmark an encoder considers the same as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from core.errors import BadSampleError
from core.stages import ImageFacts
from manifests.embeddings import to_matrix

Vectors = npt.NDArray[np.float32]

COSINE = 0.99
"""Default of the smallest cosine. By `conse` it finds half of the photographs that were encoded again and 80 % of those
that were scaled, and 2 % of the photographs as another one; 0.95 finds 11 % as another one (docs/benchmarks.md)."""


class EmbeddingMatch(NamedTuple):
    """An image of the benchmark, as it was added, and its cosine to a picture, -1 to 1."""

    row: int
    cosine: float


class EmbeddingIndex:
    """The embeddings of a benchmark's images, all in memory."""

    def __init__(self, rows: Sequence[int], vectors: Sequence[Vectors]) -> None:
        self._rows = np.array(rows, np.int64)
        self._vectors = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)

    def search(self, vector: Vectors, least: float) -> list[EmbeddingMatch]:
        """Return the images of at least this cosine, most similar first."""
        if not len(self._rows):
            return []
        cosines = (self._vectors @ vector).clip(-1, 1)
        order = np.argsort(-cosines, kind="stable")
        return [EmbeddingMatch(int(self._rows[n]), float(cosines[n])) for n in order if cosines[n] >= least]


class Embedder:
    """Embeds one picture after the other; any thread may call it.

    Attributes:
        side: Smallest shorter side of a picture, in pixels; None: every pixel is needed.
    """

    def __init__(self, facts: ImageFacts) -> None:
        """Use a loaded stage that writes `image_embedding`: `clip` or `conse`."""
        self._facts, self._lock, self.side = facts, Lock(), facts.side

    def __call__(self, picture: Image) -> Vectors:
        """Return the vector of an RGB picture, of length 1.

        Raises:
            BadSampleError: The model gave no vector.
        """
        prepared = self._facts.prepare(picture)
        with self._lock:
            table = self._facts([prepared])
        vectors, errors = to_matrix(table["image_embedding"])
        if errors[0]:
            raise BadSampleError(errors[0])
        vector: Vectors = vectors[0]
        return vector
