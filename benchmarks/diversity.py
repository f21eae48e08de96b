"""What balancing does to the diversity of labelled images, which order it does best by, and how good the clusters are.

Labelled images with a heavy tail: mildly augmented copies (crop, mirror, turn, brightness, JPEG) of originals, their
number falling as 1 / rank (`benchmarks/labelled.py`). The offline encoder (`conse`) embeds them.

Measured over the demo's photographs (`make demo` gathers them), each of them a class:

* the entropy of the labels, and its exponential (the effective number of classes), over a balanced choice (`total`, a
  third of the images; clusters from either start of k-means, median of 5 seeds) and over a random draw of the same
  size (median of 20);
* the purity of our clusters (the share of images that have the most common label of their cluster) and of
  scikit-learn's `KMeans` with as many clusters, on the same vectors, medians of 5 seeds; target: at most 2 % lower.

Measured over two pools, photographs and cut-outs on transparent ground, for each order of a balanced choice of a
third and of a tenth: the entropy of the labels and of the originals, so that copies of one original count as one;
mean and deviation over 5 seeds, each of which draws its own originals, copies, clusters and hashes. A twentieth of
the images are strays: two originals in one picture; the last column says which share of them is chosen. Beside the
orders stand a random draw without balance, and greedy k-centre in each cluster (first a row by chance, then always
the row that is farthest from those taken): its time goes with rows × quota × dimensions of a cluster, and it must
have the embeddings at hand, so it is no order that 100 M rows can have.

    .venv/bin/python benchmarks/diversity.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from common import PHOTOGRAPHS, machine, report
from labelled import Original, copies, cut_outs, embed, heavy_tail, photographs, strays

from clustering.kmeans import Clusters
from manifests.embeddings import to_matrix
from manifests.groups import effective_number
from manifests.priorities import priority
from manifests.rules import Rule

SEEDS = 5
ORDERS = ("random", "closest", "farthest", "spread")
CLASSES, IMAGES = 72, 720  # originals of a seed's pool, and their copies
PER_CLUSTER = 25  # images, mean
STRAYS = 0.05  # of the images
SHARES = (3, 10)  # one image of so many is kept

Choice = npt.NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="augmented images (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    files = sorted(p for p in PHOTOGRAPHS.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        sys.exit(f"{PHOTOGRAPHS} is empty: `make demo` gathers the photographs")
    results = {"machine": machine(), **measure(files, args.images)}
    kinds = {"photographs": photographs(files), "cut-outs": cut_outs(files)}
    orders = {
        f"{name}, 1 of {share}": by_order
        for name, originals in kinds.items()
        for share, by_order in compare(originals).items()
    }
    if args.json:
        print(json.dumps(results | {"orders": orders}, indent=2))
        return
    rows = [(name, f"{value:.3f}" if isinstance(value, float) else value) for name, value in results.items()][1:]
    report(results, ("what", "measured"), rows, False)
    columns = ("pool", "order", "label entropy (nats)", "origin entropy (nats)", "strays chosen")
    lines = [(pool, order, *cells(seeds)) for pool, by_order in orders.items() for order, seeds in by_order.items()]
    report(results, columns, lines, False)


def cells(seeds: Sequence[tuple[float, float, float]]) -> list[str]:
    """Mean and standard deviation over the seeds."""
    labels, origins, odd = np.array(seeds).T
    return [*(f"{v.mean():.3f} ± {v.std(ddof=1):.3f}" for v in (labels, origins)), f"{odd.mean():.0%}"]


def compare(
    originals: Sequence[Original], classes: int = CLASSES, images: int = IMAGES, seeds: int = SEEDS
) -> dict[int, dict[str, list[tuple[float, float, float]]]]:
    """For each share, order and seed: the entropy of the labels, that of the originals, and which strays are chosen."""
    diversity: dict[int, dict[str, list[tuple[float, float, float]]]] = {share: {} for share in SHARES}
    names = sorted({original.label for original in originals})
    for seed in range(seeds):
        origins, vectors = pool(originals, classes, images, seed)
        labels = np.array([names.index(original.label) for original in originals])[origins]
        stray = origins < 0
        for share, by_order in diversity.items():
            for order, chosen in choices(vectors, seed, len(vectors) // share).items():
                plain = chosen & ~stray
                odd = float(chosen[stray].mean())
                by_order.setdefault(order, []).append((entropy(labels[plain]), entropy(origins[plain]), odd))
    return diversity


def pool(originals: Sequence[Original], classes: int, images: int, seed: int) -> tuple[Any, pa.Array]:
    """The number of each image's original, -1 for a stray, and its embedding."""
    dice = np.random.default_rng(seed)
    originals_of_rows = dice.permutation(len(originals))[:classes][heavy_tail(min(classes, len(originals)), images)]
    odd = round(STRAYS * len(originals_of_rows))
    images_of_rows = chain(copies(originals, originals_of_rows, dice), strays(originals, odd, dice))
    return np.concatenate([originals_of_rows, np.full(odd, -1)]), embed(images_of_rows)


def choices(vectors: pa.Array, seed: int, total: int) -> dict[str, Choice]:
    """The images that each order keeps, so many in all, by its name."""
    rows = clustered(vectors, max(2, len(vectors) // PER_CLUSTER), seed)
    drawn = np.zeros(len(vectors), bool)
    drawn[np.random.default_rng(seed).choice(len(vectors), total, replace=False)] = True
    kept = {order: Rule("total", "cluster", total, order, seed).passes(rows).to_numpy() for order in ORDERS}
    groups = rows["cluster"].to_numpy()
    quotas = np.bincount(groups[kept["random"]], minlength=int(groups.max()) + 1)
    matrix, _ = to_matrix(vectors)
    return {"(random draw)": drawn, **kept, "(k-centre)": k_centre(groups, matrix, quotas, seed)}


def k_centre(groups: Any, vectors: Any, quotas: Any, seed: int) -> Choice:
    """Greedy k-centre (Gonzalez 1985) in each group."""
    chosen = np.zeros(len(groups), bool)
    for group in np.flatnonzero(quotas):
        rows = np.flatnonzero(groups == group)
        taken = [int(np.argmin(priority(rows, seed)))]
        distance = 1 - vectors[rows] @ vectors[rows[taken[0]]]
        for _ in range(quotas[group] - 1):
            distance[taken[-1]] = -1
            taken.append(int(np.argmax(distance)))
            distance = np.minimum(distance, 1 - vectors[rows] @ vectors[rows[taken[-1]]])
            distance[taken] = -1
        chosen[rows[taken]] = True
    return chosen


def measure(files: Sequence[Path], images: int, clusters: int | None = None) -> dict[str, Any]:
    """Balance and clusters of augmented images of these files, each of them a class."""
    labels = heavy_tail(len(files), images)
    vectors = embed(copies(photographs(files), labels, np.random.default_rng(0)))
    clusters = clusters or len(files)
    third = len(labels) // 3
    dice = np.random.default_rng(0)
    drawn = statistics.median(entropy(dice.choice(labels, third, replace=False)) for _ in range(20))
    results: dict[str, Any] = {"images": len(labels), "classes": len(files), "clusters": clusters, "chosen": third}
    results |= {"label entropy, random draw (nats)": drawn, "effective classes, random draw": float(np.exp(drawn))}
    for init in ("afk-mc2", "random"):
        ours = [clustered(vectors, clusters, seed, init) for seed in range(SEEDS)]
        kept = [Rule("total", "cluster", third).passes(rows).to_numpy() for rows in ours]
        balanced = statistics.median(entropy(labels[chosen]) for chosen in kept)
        results[f"label entropy, balanced ({init})"] = balanced
        results[f"effective classes, balanced ({init})"] = float(np.exp(balanced))
        results[f"purity, ours ({init})"] = statistics.median(
            purity(labels, rows["cluster"].to_numpy()) for rows in ours
        )
    theirs = [by_scikit_learn(vectors, clusters, seed) for seed in range(SEEDS)]
    return results | {"purity, scikit-learn": statistics.median(purity(labels, predicted) for predicted in theirs)}


def clustered(vectors: pa.Array, clusters: int, seed: int, init: Any = "afk-mc2") -> pl.DataFrame:
    """Our clusters of the vectors: `id` and the facts of `clusters`."""
    stage = Clusters(clusters=clusters, init=init, seed=seed)
    table = pa.table({"image_embedding": vectors})
    fitted, _ = stage.fit(table)
    facts = pl.DataFrame(stage.load_fitted(fitted, {"image_embedding": table.schema.field(0)})(table))
    return facts.with_row_index("id").with_columns(pl.col("id").cast(pl.Int64))


def by_scikit_learn(vectors: pa.Array, clusters: int, seed: int) -> Any:
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]

    matrix, _ = to_matrix(vectors)
    return KMeans(clusters, random_state=seed).fit(matrix).labels_


def purity(labels: Any, clusters: Any) -> float:
    """The share of the images that have the most common label of their cluster."""
    counts = np.zeros((int(clusters.max()) + 1, int(labels.max()) + 1), int)
    np.add.at(counts, (clusters, labels), 1)
    return float(counts.max(axis=1).sum() / len(labels))


def entropy(labels: Any) -> float:
    """Of the labels' distribution, in nats."""
    return float(np.log(effective_number(np.bincount(labels))))


if __name__ == "__main__":
    main()
