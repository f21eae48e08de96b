"""Centroids on the unit sphere: k-means, and a nearest-centroid search with the same result for a row in any batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Init = Literal["afk-mc2", "random"]
Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_CANDIDATES = 3  # nearest centroids by matrix product; the nearest two of them are then determined exactly
_ROWS = 64  # rows that a thread compares with their candidates at once; a batch of the stage has 1,024


def spherical_kmeans(points: Vectors, count: int, iterations: int, seed: int, init: Init) -> tuple[Vectors, float]:
    """Run faiss's spherical k-means, on all GPUs that faiss can use, else on all cores.

    A run gives the training the GPUs of one actor: 1, or the stage's `resources: {num_gpus: …}`. Each GPU holds all
    centroids and searches for a part of the points.

    Args:
        points: Unit vectors, (points, dimensions); at least `count`.
        count: Number of centroids.
        iterations: Maximum of iterations.
        seed: The same seed, points, count and devices give the same centroids.
        init: Initialization of the centroids, see `Clusters`.

    Returns:
        Centroids of length 1, (count, dimensions), and the sum of each point's cosine to its nearest centroid.

    Raises:
        ArithmeticError: faiss returned a centroid that is zero or not finite.
    """
    import faiss

    starts = {"afk-mc2": faiss.ClusteringInitMethod_AFK_MC2, "random": faiss.ClusteringInitMethod_RANDOM}
    # faiss must not sample (the runner did), nor warn about few points per centroid (the provenance has the number).
    trained = faiss.Kmeans(
        points.shape[1],
        count,
        niter=iterations,
        spherical=True,
        seed=seed + 1,  # faiss ignores the seed 0
        gpu=gpus(),
        init_method=starts[init],
        min_points_per_centroid=1,
        max_points_per_centroid=-(-len(points) // count),
    )
    objective = trained.train(np.ascontiguousarray(points))
    centroids = np.asarray(trained.centroids, np.float32)
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ArithmeticError("faiss gave a centroid that is not finite or zero")
    return centroids / lengths, round(float(objective), 4)


class Centroids:
    """A search index of centroids, on all GPUs that faiss can use. Of several equal centroids, it returns the first.

    Args:
        vectors: Length 1, (centroids, dimensions).
    """

    def __init__(self, vectors: Vectors) -> None:
        import faiss

        _, first = np.unique(vectors, axis=0, return_index=True)
        self._numbers: Ints = np.sort(first)
        self._exact = vectors[self._numbers].astype(np.float64)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[self._numbers]))
        self._index: Any = faiss.index_cpu_to_all_gpus(index, ngpu=gpus()) if gpus() else index
        self._threads = ThreadPoolExecutor(faiss.omp_get_max_threads(), "centroids")

    def sizes(self, points: Vectors) -> Ints:
        """Count the points that are nearest to each centroid, (centroids), without zeros at the end."""
        _, neighbours = self._index.search(np.ascontiguousarray(points), 1)
        return np.bincount(self._numbers[neighbours[:, 0]])

    def nearest(self, vectors: Vectors, count: int) -> tuple[Ints, Vectors]:
        """Return the nearest centroids of each vector, nearest first; ties are sorted by number.

        A matrix product selects a few candidates. Its last bits depend on the shapes of the matrices, so the distances
        of the candidates are computed again in float64, row by row, in as many threads as faiss has: a row has the same
        result alone and in any batch.

        Args:
            vectors: Length 1, (rows, dimensions).
            count: Maximum of centroids per vector: 1 or 2.

        Returns:
            Numbers and cosine distances (float32, 0 to 2), both (rows, count), or fewer columns with fewer centroids.
        """
        _, neighbours = self._index.search(np.ascontiguousarray(vectors), min(_CANDIDATES, len(self._numbers)))
        cosines = np.empty(neighbours.shape, np.float64)

        def compute(rows: slice) -> None:
            exact = vectors[rows].astype(np.float64)
            for rank in range(neighbours.shape[1]):
                candidates = self._exact.take(neighbours[rows, rank], axis=0)
                np.einsum("nd,nd->n", exact, candidates, out=cosines[rows, rank])

        list(self._threads.map(compute, [slice(start, start + _ROWS) for start in range(0, len(vectors), _ROWS)]))
        distances = (1 - cosines).clip(0, 2).astype(np.float32)
        order = np.lexsort((neighbours, distances), axis=-1)[:, :count]
        return self._numbers[np.take_along_axis(neighbours, order, 1)], np.take_along_axis(distances, order, 1)


def faiss_version() -> str:
    import faiss

    return str(faiss.__version__)


def gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
