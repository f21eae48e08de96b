"""Clusters: k-means by faiss, and the search for the nearest centroids."""

from __future__ import annotations

import time
from collections.abc import Iterator

import kmeans as kmeans_benchmark
import numpy as np
import torch

from gpu_lines.measures import seconds
from gpu_lines.proof import Figure, Place


def kmeans(place: Place) -> Iterator[Figure]:
    """`Clusters.fit` on 512 numbers a vector, 25 iterations."""
    from clustering.kmeans import Clusters

    table = kmeans_benchmark.vectors(place.size(200_000, 2_000))
    begin = time.perf_counter()
    fitted, provenance = Clusters(clusters=place.size(2_000, 20)).fit(table)
    yield Figure("vectors", table.num_rows)
    yield Figure("centroids", fitted.num_rows)
    yield Figure("device of faiss", str(provenance["device"]))
    yield Figure("training", time.perf_counter() - begin, "s")
    mean = float(str(provenance["objective"])) / table.num_rows
    yield Figure("mean cosine to the nearest centroid", mean, least=place.size(0.2, 0.1))


def nearest(place: Place) -> Iterator[Figure]:
    """`Centroids.nearest` in the stage's batches of 1,024 vectors, against all distances in float64."""
    from clustering.centroids import Centroids, gpus

    rows, count = place.size(131_072, 2_048), place.size(10_000, 50)
    vectors = kmeans_benchmark.flat(kmeans_benchmark.vectors(rows + count)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centroids, points = vectors[:count], vectors[count:]
    search = Centroids(centroids)
    batches = np.split(points, rows // 1024)
    taken = seconds(place, lambda: [search.nearest(batch, 2) for batch in batches], repeat=1, warm=0)
    yield Figure("GPUs that faiss uses", gpus())
    yield Figure("rate", rows / taken, "vectors/s")
    numbers, distances = search.nearest(points[:1024], 2)
    exact = 1 - torch.from_numpy(points[:1024]).double() @ torch.from_numpy(centroids).double().T
    truth = exact.topk(2, largest=False)
    yield Figure("numbers equal to float64's", 100 * float((truth.indices.numpy() == numbers).mean()), "%", least=100)
    yield Figure("distances off by at most", float(np.abs(truth.values.numpy() - distances).max()), most=1e-6)
    alone = np.concatenate([search.nearest(points[row : row + 1], 2)[1] for row in range(32)])
    yield Figure("rows whose distances differ when alone", int((alone != distances[:32]).any(1).sum()), most=0)
