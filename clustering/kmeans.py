"""Visual clusters: spherical k-means over stored embeddings. It is trained once; images are assigned in batches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from clustering.centroids import Centroids, Init, Ints, Vectors, faiss_version, gpus, spherical_kmeans
from core.errors import UserError
from core.stages import Facts, FittedStage
from manifests.embeddings import encoder_of, is_embedding, to_matrix
from manifests.schemas import column

FITTED = pa.schema(
    [
        pa.field("level", pa.int32(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("parent", pa.int32()),
        pa.field("points", pa.int64(), nullable=False),
        pa.field("centroid", pa.list_(pa.float32()), nullable=False),
    ]
)
"""The fitted artifact of `Clusters`: one row per centroid. `level` is 1 for the lowest level, `cluster` the number in
that level, `parent` the cluster in the level above (null for the top level); `points` is the number of points (images
of the sample, or centroids of the level below) that are nearest to it; `centroid` has length 1."""


class Clusters(FittedStage):
    """The cluster of each image: the centroid nearest to its embedding, and the distance to it.

    The fourth step of VL3-Syn7M clusters CLIP features and keeps a fixed number of images around each centre
    (VideoLLaMA 3, arXiv 2501.13106, section 2.3; the paper names kNN, but neither the number of clusters nor of
    images). Embeddings are unit vectors, so the means are normalized (spherical k-means, Dhillon and Modha 2001), by
    faiss.

    With `levels`, the centroids are clustered again, and so are the centroids of that level (hierarchical k-means, Vo
    et al. 2024, Automatic data curation for self-supervised learning, arXiv 2405.15613, section 3.2). k-means places
    centroids where images are dense; k-means over centroids spreads them more evenly over all images. `resamplings`
    trains each upper level again on only the `nearest` points around each of its centroids, which spreads them further.

    Attributes:
        clusters: Number of clusters in the lowest level.
        levels: Number of clusters in each level above; each number is smaller than the one before.
        resamplings: How often each level above is trained again on the points nearest to its centroids.
        nearest: Number of these points per centroid.
        iterations: Maximum of k-means iterations.
        init: Initialization of k-means. `afk-mc2` (Bachem et al. 2016, Fast and provably good seedings for k-means)
            starts from points far from each other, so that rare images get a centroid too, and a balanced selection
            has more of them (`benchmarks/diversity.py`). Its time does not depend on the sample and grows with the
            square of the number of clusters. `random` starts from random points, for very many clusters.
        seed: Seed of the initialization.
        points_per_centroid: Images of the sample per cluster; more images are slower and hardly better.
        fitted: Hash of the fitted artifact; the run fills it in.
    """

    name: ClassVar = "clusters"
    driver_rows: ClassVar = 10_000
    reads: ClassVar = ("image_embedding",)
    packages: ClassVar = {"faiss": "cpu"}
    clusters: int = Field(ge=1)
    levels: tuple[int, ...] = ()
    resamplings: int = Field(0, ge=0)
    nearest: int = Field(10, ge=1)
    iterations: int = Field(25, ge=1)
    init: Init = "afk-mc2"
    seed: int = Field(0, ge=0, lt=2**31 - 1_000_000)
    points_per_centroid: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _fewer_above(self) -> Clusters:
        for below, above in zip((self.clusters, *self.levels), self.levels, strict=False):
            if not 1 <= above < below:
                raise UserError(f"levels: {above} above {below}: each level has fewer clusters than the one beneath")
        return self

    @property
    def writes(self) -> pa.Schema:
        above = [f"cluster_{n}" for n in range(2, len(self.levels) + 2)]
        lowest = column("cluster", pa.int32(), "Cluster of the image: number of the nearest centroid", 0, nominal=True)
        if above:  # a rule `total` distributes its budget over these levels, from the top down
            lowest = lowest.with_metadata({**lowest.metadata, b"within": ",".join(above).encode()})
        coarser = [column(name, pa.int32(), f"Cluster at level {name[8:]}", 0, nominal=True) for name in above]
        return pa.schema(
            [
                lowest,
                column("distance", pa.float32(), "Cosine distance to the nearest centroid", 0, 2),
                column("second_cluster", pa.int32(), "Number of the second nearest centroid", 0, nominal=True),
                column("second_distance", pa.float32(), "Cosine distance to the second nearest centroid", 0, 2),
                *coarser,
            ]
        )

    @property
    def gpus(self) -> int:
        """1 if the installed faiss can use a GPU, else 0."""
        try:
            import faiss
        except (ImportError, RuntimeError):  # RuntimeError: faiss-gpu without its CUDA runtime
            return 0
        return int(hasattr(faiss, "StandardGpuResources"))

    @property
    def sample_rows(self) -> int:
        """Maximum of images in the training sample."""
        return self.clusters * self.points_per_centroid

    def validate_inputs(self, inputs: Mapping[str, pa.Field]) -> None:
        if not is_embedding(inputs["image_embedding"]):
            raise UserError(f"image_embedding is {inputs['image_embedding'].type}, not a fixed-size list of numbers")

    def fit(self, sample: pa.Table) -> tuple[pa.Table, dict[str, object]]:
        """Train on a sample of embeddings; return a table with the schema `FITTED`, and its provenance.

        Raises:
            UserError: Fewer usable embeddings than clusters.
        """
        begin = time.perf_counter()
        vectors, errors = to_matrix(sample["image_embedding"])
        if any(errors):
            vectors = vectors[[error is None for error in errors]]
        if len(vectors) < self.clusters:
            raise UserError(
                f"clusters: {self.clusters:,} clusters of {len(vectors):,} images with an embedding cannot be; ask for "
                "fewer, best with 39 or more images for each"
            )
        centroids, objective = spherical_kmeans(vectors, self.clusters, self.iterations, self.seed, self.init)
        levels = [centroids]
        for level, count in enumerate(self.levels, start=1):
            levels.append(self._above(levels[-1], count, self.seed + level))
        provenance: dict[str, object] = {
            "faiss": faiss_version(),
            "device": "cuda" if gpus() else "cpu",
            "encoder": encoder_of(sample.schema.field("image_embedding")),
            "points": len(vectors),
            "points_per_centroid": round(len(vectors) / self.clusters, 1),
            "objective": objective,
            "seconds": round(time.perf_counter() - begin, 1),
        }
        return _table(vectors, levels), provenance

    def load_fitted(self, fitted: pa.Table, inputs: Mapping[str, pa.Field]) -> Assignment:
        """Return the callable that assigns images to clusters.

        Raises:
            UserError: `fitted` holds no centroids, or centroids of another width than these embeddings; it may have
                been copied from another run.
        """
        if fitted.column_names != FITTED.names or not fitted.num_rows:
            raise UserError("clusters: what is stored in fitted/ are no centroids; delete it, or train with --refit")
        width, wanted = len(fitted["centroid"][0]), inputs["image_embedding"].type.list_size
        if width != wanted:
            raise UserError(
                f"clusters: the centroids in fitted/ have {width} numbers and the embeddings {wanted}; "
                "delete them, or train with --refit"
            )
        return Assignment(self, fitted)

    def _above(self, points: Vectors, count: int, seed: int) -> Vectors:
        """Train the centroids of a level on all points, then up to `resamplings` times on points nearest to them."""
        centroids, _ = spherical_kmeans(points, count, self.iterations, seed, self.init)
        for _ in range(self.resamplings):
            nearest, distances = Centroids(centroids).nearest(points, 1)
            order = np.lexsort((distances[:, 0], nearest[:, 0]))
            sizes = np.bincount(nearest[:, 0], minlength=count)
            rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            around = np.sort(order[rank < self.nearest])
            if len(around) < count:
                break
            centroids, _ = spherical_kmeans(points[around], count, self.iterations, seed, self.init)
        return centroids


class Assignment(Facts):
    """Assigns images to clusters; the centroids are on a GPU if faiss can use one."""

    def __init__(self, stage: Clusters, fitted: pa.Table) -> None:
        levels = fitted["level"].to_numpy()
        lowest = fitted.filter(pa.array(levels == 1))
        self._writes = stage.writes
        vectors = np.stack(lowest["centroid"].to_numpy()).astype(np.float32)
        self._centroids = Centroids(vectors)
        self._above: list[Ints] = []
        for level in range(1, len(stage.levels) + 1):
            parents = fitted.filter(pa.array(levels == level))["parent"].to_numpy().astype(np.int64)
            self._above.append(parents[self._above[-1]] if self._above else parents)
        self.provenance = {"faiss": faiss_version(), "device": "cuda" if gpus() else "cpu"}

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors, errors = to_matrix(batch["image_embedding"])
        clusters, distances = self._centroids.nearest(vectors, 2)
        bad = np.array([error is not None for error in errors], bool)
        columns: list[Any] = []
        for rank in range(2):
            exists = clusters.shape[1] > rank
            columns.append(clusters[:, rank] if exists else None)
            columns.append(distances[:, rank] if exists else None)
        columns += [parents[clusters[:, 0]] for parents in self._above]
        arrays = [
            pa.nulls(len(bad), field.type) if values is None else pa.array(values, mask=bad).cast(field.type)
            for values, field in zip(columns, self._writes, strict=True)
        ]
        return pa.table([*arrays, pa.array(errors, pa.string())], names=[*self._writes.names, "error"])


def _table(vectors: Vectors, levels: list[Vectors]) -> pa.Table:
    """Build the table `FITTED`: the centroids of each level, with parents and numbers of points of the level below."""
    tables = []
    beneath = vectors
    for level, centroids in enumerate(levels, start=1):
        points = np.zeros(len(centroids), np.int64)
        sizes = Centroids(centroids).sizes(beneath)
        points[: len(sizes)] = sizes
        above = Centroids(levels[level]).nearest(centroids, 1)[0][:, 0] if level < len(levels) else None
        columns = [
            pa.array(np.full(len(centroids), level, np.int32)),
            pa.array(np.arange(len(centroids), dtype=np.int32)),
            pa.nulls(len(centroids), pa.int32()) if above is None else pa.array(above.astype(np.int32)),
            pa.array(points),
            pa.array(list(centroids), pa.list_(pa.float32())),
        ]
        tables.append(pa.table(columns, schema=FITTED))
        beneath = centroids
    return pa.concat_tables(tables)
