"""Clusters: known answers, the same bits for a row in any batch, as good as scikit-learn's, and levels above."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from clustering.centroids import Centroids
from clustering.kmeans import Clusters
from manifests.embeddings import embedding_column, from_matrix
from manifests.schemas import column

Floats = npt.NDArray[np.floating[Any]]
SetThreads = Callable[[int], None]


def table_of(vectors: Floats) -> pa.Table:
    embeddings, _ = from_matrix(vectors)
    field = embedding_column("image_embedding", vectors.shape[1], "made-up", "")
    return pa.table([embeddings], schema=pa.schema([field]))


def blobs(sizes: list[int], spread: float, dimensions: int = 24, seed: int = 0) -> tuple[pa.Table, Any]:
    """Directions around so many centres, shuffled, and which centre each is of."""
    dice = np.random.default_rng(seed)
    labels = dice.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = dice.normal(size=(len(sizes), dimensions))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return table_of(centres[labels] + spread * dice.normal(size=(len(labels), dimensions))), labels


def fields(table: pa.Table) -> dict[str, pa.Field]:
    return {field.name: field for field in table.schema}


def assigned(stage: Clusters, sample: pa.Table, batch: pa.Table | None = None) -> pa.Table:
    fitted, _ = stage.fit(sample)
    return stage.load_fitted(fitted, fields(sample))(sample if batch is None else batch)


def purity(labels: Any, clusters: Any) -> float:
    counts = np.zeros((clusters.max() + 1, labels.max() + 1), int)
    np.add.at(counts, (clusters, labels), 1)
    return float(counts.max(axis=1).sum() / len(labels))


def matrix(table: pa.Table) -> Floats:
    array = table["image_embedding"].combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1).astype(np.float64)


def test_separate_directions_become_separate_clusters() -> None:
    table, labels = blobs([40, 40, 40], spread=0.01)
    result = assigned(Clusters(clusters=3, seed=2), table)
    assert purity(labels, result["cluster"].to_numpy()) == 1
    assert result["distance"].to_numpy().max() < 0.01
    assert (result["second_distance"].to_numpy() > 0.3).all()
    assert result.schema.names == [*Clusters(clusters=3).writes.names, "error"]


def test_nearest_two_clusters_equal_a_plain_search() -> None:
    table, _ = blobs([300] * 8, spread=0.2)
    stage = Clusters(clusters=40)
    fitted, _ = stage.fit(table)
    centroids = np.stack(fitted["centroid"].to_numpy()).astype(np.float64)
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(1)
    result = stage.load_fitted(fitted, fields(table))(table)
    distances = 1 - matrix(table) @ centroids.T
    order = np.argsort(distances, axis=1)
    for rank, (number, distance) in enumerate((("cluster", "distance"), ("second_cluster", "second_distance"))):
        assert (result[number].to_numpy() == order[:, rank]).all()
        expected = np.take_along_axis(distances, order[:, rank : rank + 1], 1)[:, 0]
        assert result[distance].to_numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_row_gets_the_same_bits_in_any_batch(size: int) -> None:
    table, _ = blobs([250] * 4, spread=0.3, dimensions=96)
    stage = Clusters(clusters=30)
    fitted, _ = stage.fit(table)
    load = stage.load_fitted(fitted, fields(table))
    whole = load(table)
    turned = np.random.default_rng(size).permutation(table.num_rows)
    shuffled = table.take(pa.array(turned))
    parts = [load(shuffled.slice(start, size)) for start in range(0, table.num_rows, size)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.take(pa.array(turned)).combine_chunks())


def test_near_ties_are_ordered_by_stored_distance_then_number() -> None:
    """Pairs of centroids a ten-millionth apart: a product in float32 cannot tell which is nearer."""
    dice = np.random.default_rng(0)
    pairs = np.repeat(dice.normal(size=(20, 256)), 2, axis=0) + 1e-7 * dice.normal(size=(40, 256))
    pairs = (pairs / np.linalg.norm(pairs, axis=1, keepdims=True)).astype(np.float32)
    vectors = pairs[dice.integers(0, 40, 500)] + 0.05 * dice.normal(size=(500, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    result, distances = Centroids(pairs).nearest(vectors, 2)
    exact = (1 - vectors.astype(np.float64) @ pairs.astype(np.float64).T).astype(np.float32)
    order = np.lexsort((np.broadcast_to(np.arange(40), exact.shape), exact), axis=-1)[:, :2]
    assert (result == order).mean() > 0.99, "all but where float32 rounds the two sums of float64 apart"
    assert distances == pytest.approx(np.take_along_axis(exact, order, 1), abs=1e-7)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_nearest_with_ties_equals_a_plain_search(seed: int, threads: int, few_threads: SetThreads) -> None:
    """Vectors of signs have exact cosines. Each row has two or three centroids that differ in one sign: ties."""
    few_threads(threads)
    dice = np.random.default_rng(seed)
    points = np.sign(dice.normal(size=(60, 64))).astype(np.float32) / 8
    flipped = []
    for point in points:
        for place in dice.choice(64, dice.integers(2, 4), replace=False):
            flipped.append(point.copy())
            flipped[-1][place] *= -1
    centroids = np.stack(flipped)[dice.permutation(len(flipped))]
    exact = (centroids @ points.T).T  # sums of 1/64, which float32 holds exactly
    order = np.stack([np.lexsort((np.arange(len(centroids)), -row)) for row in exact])[:, :2]
    index = Centroids(centroids)
    for rows in (slice(None), slice(7, 8), slice(3, 40)):
        many = np.repeat(points[rows], 5, axis=0)  # more rows than a thread takes at once
        numbers, distances = index.nearest(many, 2)
        assert (numbers == np.repeat(order[rows], 5, axis=0)).all()
        assert (distances == np.float32(1 / 32)).all()


def test_nearest_computes_exact_distances_in_several_threads(
    few_threads: SetThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_threads(2)
    dice = np.random.default_rng(0)
    vectors = dice.normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Centroids(vectors[:9])
    expected = index.nearest(vectors, 2)
    einsum, both = np.einsum, threading.Barrier(2)

    def beside_another(*arguments: Any, **named: Any) -> Any:
        if not both.broken and not met.is_set():
            both.wait(10)
            met.set()
        return einsum(*arguments, **named)

    met = threading.Event()
    monkeypatch.setattr(np, "einsum", beside_another)
    found = index.nearest(vectors, 2)
    assert met.is_set()
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


@pytest.fixture
def few_threads() -> Iterator[SetThreads]:
    """`few_threads(count)`: how many threads faiss has."""
    import faiss

    before = faiss.omp_get_max_threads()
    yield faiss.omp_set_num_threads
    faiss.omp_set_num_threads(before)


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """faiss with three GPUs, which are CPUs: the indices that it made for them, copies that share the queries."""
    import faiss

    made: list[Any] = []

    def index_cpu_to_all_gpus(index: Any, co: Any = None, ngpu: int = -1) -> Any:
        replicas = faiss.IndexReplicas(index.d, True)
        replicas.referenced_objects = [faiss.clone_index(index) for _ in range(ngpu)]
        for replica in replicas.referenced_objects:
            replicas.add_replica(replica)
        made.append(replicas)
        return replicas

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 3)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", index_cpu_to_all_gpus, raising=False)
    return made


def test_several_gpus_train_and_search_as_one(three_gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = blobs([200] * 5, spread=0.3)
    stage = Clusters(clusters=25)
    fitted, _ = stage.fit(table)
    result = stage.load_fitted(fitted, fields(table))(table)
    assert [index.count() for index in three_gpus] == [3, 3, 3], "for training, sizes and assignment"
    assert all(index.at(number).ntotal == 25 for index in three_gpus for number in range(3))
    monkeypatch.undo()
    alone, _ = stage.fit(table)
    assert fitted.equals(alone)
    assert result.equals(stage.load_fitted(alone, fields(table))(table))


def test_first_of_equal_centroids_is_chosen() -> None:
    dice = np.random.default_rng(0)
    eight = np.tile(dice.normal(size=(5, 96)), (8, 1)).astype(np.float32)
    eight /= np.linalg.norm(eight, axis=1, keepdims=True)
    result, _ = Centroids(eight).nearest(eight, 2)
    assert (result[:, 0] == np.arange(40) % 5).all()
    assert (result[:, 1] < 5).all()
    assert (result[:, 0] != result[:, 1]).all(), "the next nearest is another place"
    assert Centroids(eight).sizes(eight).tolist() == [8] * 5


def test_centroids_depend_on_sample_and_seed_only() -> None:
    table, _ = blobs([200] * 5, spread=0.3)
    stage = Clusters(clusters=25, levels=(5,))
    assert stage.fit(table)[0].equals(stage.fit(table)[0])
    assert not stage.fit(table)[0].equals(Clusters(clusters=25, levels=(5,), seed=1).fit(table)[0])


def test_clusters_are_as_pure_as_those_of_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    sizes = [int(2000 / (rank + 1)) for rank in range(30)]  # a heavy tail
    table, labels = blobs(sizes, spread=0.3, dimensions=32)
    ours = purity(labels, assigned(Clusters(clusters=60), table)["cluster"].to_numpy())
    theirs = purity(labels, KMeans(60, random_state=0).fit(matrix(table)).labels_)
    assert 0.5 < theirs < 0.99, "or there is nothing to compare"
    assert ours > theirs - 0.02


def test_broken_embedding_is_an_error_of_its_row_only() -> None:
    table, _ = blobs([30, 30], spread=0.05)
    values = table["image_embedding"].to_pylist()
    values[3], values[5], values[8] = None, [0.0] * 24, [float("nan")] * 24
    broken = pa.table([pa.array(values, table.schema.field(0).type)], schema=table.schema)
    result = assigned(Clusters(clusters=2), table, broken)
    whole = assigned(Clusters(clusters=2), table)
    for name in Clusters(clusters=2).writes.names:
        assert [n for n, value in enumerate(result[name].to_pylist()) if value is None] == [3, 5, 8]
    assert [n for n, error in enumerate(result["error"].to_pylist()) if error] == [3, 5, 8]
    assert result["cluster"].to_pylist()[9:] == whole["cluster"].to_pylist()[9:]
    fitted, provenance = Clusters(clusters=2).fit(broken)
    assert provenance["points"] == 57, "they are not trained on"
    assert np.isfinite(np.stack(fitted["centroid"].to_numpy())).all()


def test_fewer_images_than_clusters_are_refused() -> None:
    table, _ = blobs([5, 5], spread=0.2)
    with pytest.raises(ValueError, match=r"11 clusters of 10 images .* ask for fewer"):
        Clusters(clusters=11).fit(table)
    result = assigned(Clusters(clusters=10), table)
    assert len(set(result["cluster"].to_pylist())) == 10


def test_one_cluster_has_no_second() -> None:
    result = assigned(Clusters(clusters=1), blobs([5, 5], spread=0.2)[0])
    assert set(result["cluster"].to_pylist()) == {0}
    assert result["second_cluster"].null_count == result["second_distance"].null_count == 10


def test_identical_images_form_one_cluster() -> None:
    table = table_of(np.ones((50, 8)))
    fitted, _ = Clusters(clusters=4).fit(table)
    assert np.isfinite(np.stack(fitted["centroid"].to_numpy())).all()
    result = Clusters(clusters=4).load_fitted(fitted, fields(table))(table)
    assert len(set(result["cluster"].to_pylist())) == 1
    assert result["distance"].to_numpy().max() < 1e-3


def test_higher_levels_cluster_the_centroids_below() -> None:
    table, _ = blobs([100] * 12, spread=0.1)
    stage = Clusters(clusters=40, levels=(12, 3), resamplings=2, nearest=3)
    fitted, _ = stage.fit(table)
    rows = fitted.to_pylist()
    assert [sum(r["level"] == level for r in rows) for level in (1, 2, 3)] == [40, 12, 3]
    assert [sum(r["points"] for r in rows if r["level"] == level) for level in (1, 2, 3)] == [1200, 40, 12]
    assert {r["parent"] for r in rows if r["level"] == 3} == {None}
    parents = {level: {r["cluster"]: r["parent"] for r in rows if r["level"] == level} for level in (1, 2)}
    result = stage.load_fitted(fitted, fields(table))(table)
    for low, middle, top in zip(*(result[n].to_pylist() for n in ("cluster", "cluster_2", "cluster_3")), strict=True):
        assert (middle, top) == (parents[1][low], parents[2][middle])
    assert stage.writes.field("cluster").metadata[b"within"] == b"cluster_2,cluster_3"
    with pytest.raises(ValueError, match="12 above 12: each level has fewer clusters"):
        Clusters(clusters=12, levels=(12,))


def test_higher_level_is_more_even_than_the_images() -> None:
    """Vo et al. 2024, figure 3: where images are dense there are more centroids, but fewer of those of centroids."""
    dice = np.random.default_rng(0)
    dense = np.array([1.0, 0, 0]) + 0.25 * dice.normal(size=(4500, 3))
    sparse = np.array([-1.0, 0, 0]) + 0.25 * dice.normal(size=(300, 3))
    table = table_of(np.concatenate([dense, sparse]))

    def in_the_dense_half(level: int, **settings: Any) -> float:
        shares = []
        for seed in range(4):
            fitted, _ = Clusters(seed=seed, **settings).fit(table)
            shares += [r["centroid"][0] > 0 for r in fitted.to_pylist() if r["level"] == level]
        return float(np.mean(shares))

    flat = in_the_dense_half(1, clusters=50)
    above = in_the_dense_half(2, clusters=500, levels=(50,))
    again = in_the_dense_half(2, clusters=500, levels=(50,), resamplings=10, nearest=5)
    assert 0.5 < again < above - 0.03 < flat - 0.06, "fifteen in sixteen images are in the dense half"


def test_embeddings_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="is float, not a fixed-size list"):
        Clusters(clusters=2).validate_inputs({"image_embedding": column("image_embedding", pa.float32(), "")})
    fitted, provenance = Clusters(clusters=2).fit(blobs([9, 9], 0.1)[0])
    assert provenance["encoder"] == "made-up"
    with pytest.raises(ValueError, match="the centroids in fitted/ have 24 numbers and the embeddings 8"):
        Clusters(clusters=2).load_fitted(fitted, fields(table_of(np.ones((3, 8)))))
    with pytest.raises(ValueError, match="what is stored in fitted/ are no centroids"):
        Clusters(clusters=2).load_fitted(fitted.drop(["parent"]), fields(table_of(np.ones((3, 24)))))


@pytest.mark.gpu
def test_gpu_and_cpu_give_the_same_clusters() -> None:
    """Assignment to the same centroids is the same to the bit; training is as pure."""
    import faiss

    assert faiss.get_num_gpus() > 0, "install the extra `gpu` instead of `cpu`"
    table, labels = blobs([int(4000 / (rank + 1)) for rank in range(30)], spread=0.3, dimensions=256)
    stage = Clusters(clusters=60, levels=(10,))
    fitted, provenance = stage.fit(table)
    assert provenance["device"] == "cuda"
    on_gpu = stage.load_fitted(fitted, fields(table))(table)
    with pytest.MonkeyPatch.context() as patched:
        for module in ("kmeans", "centroids"):
            patched.setattr(f"clustering.{module}.gpus", lambda: 0)
        assert stage.load_fitted(fitted, fields(table))(table).equals(on_gpu)
        on_cpu, _ = stage.fit(table)
        expected = purity(labels, stage.load_fitted(on_cpu, fields(table))(table)["cluster"].to_numpy())
    assert purity(labels, on_gpu["cluster"].to_numpy()) > expected - 0.02
