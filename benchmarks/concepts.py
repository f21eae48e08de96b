"""How diverse a choice of labelled images is: drawn at random, balanced over clusters, or drawn by concepts.

Two pools with a heavy tail, label r having a share of the images that falls as 1 / r:

* photographs: augmented copies of the demo's photographs (`make demo` gathers them), embedded by the offline encoder
  (`conse`); the vocabulary is `imagenet`, so few labels are concepts, and the encoder knows little else;
* vectors: made up. Each label and each of as many strange concepts has a direction, an image lies between those of its
  label and of a second one, and what the vocabulary says of a direction is as far off as an image is.

Measured for a third and a tenth of each pool: the entropy of the labels of the kept images, mean and deviation over
seeds; each seed draws its own images, clusters and hashes. `exp` is the effective number of labels.

* random draw;
* clusters: `total_cluster`, `order: spread`, with as many clusters as there are labels, and with four times as many;
* concepts: `total_concepts`, with the nearest concept, the nearest three and ten;
* nearest concept in equal numbers: `total_concept`, which fills each concept to the same height.

    .venv/bin/python benchmarks/concepts.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from common import PHOTOGRAPHS, machine
from diversity import clustered, entropy, pool
from labelled import photographs

from filters.concepts import Concepts, NearestConcepts
from manifests.embeddings import from_matrix, to_matrix
from manifests.rules import Rule

SEEDS = 5
RANDOM = "random draw"
SHARES = (3, 10)  # one image of so many is kept
NEAREST = (1, 3, 10)  # concepts per image
CLASSES, IMAGES = 72, 720  # photographs of a seed's pool, and their copies
LABELS, VECTORS, DIMENSIONS = 200, 20_000, 64  # of the pool of vectors
SECOND, NOISE = 0.5, 0.09  # how far an image is drawn to a second label; deviation of each number of a vector

Pool = tuple[Any, pa.Array, Callable[[int], NearestConcepts]]
"""Labels, embeddings, and the search for so many concepts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="default %(default)s")
    parser.add_argument("--pools", nargs="*", choices=POOLS, default=list(POOLS), help="default: both")
    args = parser.parse_args()
    print(machine(), end="\n\n")
    columns = ("pool", "kept", "choice", "entropy of the labels (nats)", "above the random draw", "effective labels")
    print(f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", sep="\n")
    for name in args.pools:
        measured = measure(POOLS[name], args.seeds)
        for (share, choice), values in sorted(measured.items(), key=lambda item: item[0][0]):
            above = values - measured[share, RANDOM]
            cells = (name, f"1 of {share}", choice, _spread(values), _spread(above), f"{np.exp(values).mean():.0f}")
            print(f"| {' | '.join(cells)} |")


def measure(make: Callable[[int], Pool], seeds: int) -> dict[tuple[int, str], Any]:
    """The entropies over seeds, by share and choice."""
    measured: dict[tuple[int, str], list[float]] = {}
    for seed in range(seeds):
        labels, vectors, search = make(seed)
        choices = list(_choices(labels, vectors, search, seed))
        for share in SHARES:
            total = len(labels) // share
            drawn = np.random.default_rng(seed).choice(labels, total, replace=False)
            measured.setdefault((share, RANDOM), []).append(entropy(drawn))
            for choice, column, order, facts in choices:
                rule = Rule("total", column, total, order, seed, of_lists=column == "concepts")
                measured.setdefault((share, choice), []).append(entropy(labels[rule.passes(facts).to_numpy()]))
    return {key: np.array(values) for key, values in measured.items()}


def _spread(values: Any) -> str:
    """The mean, and with several seeds the deviation."""
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def _choices(
    labels: Any, vectors: pa.Array, search: Callable[[int], NearestConcepts], seed: int
) -> Iterator[tuple[str, str, str, pl.DataFrame]]:
    """Each choice: its name, the column and order of its rule, and the facts."""
    count = len(np.unique(labels))
    for name, clusters in (("clusters, as many as labels", count), ("clusters, four times as many", 4 * count)):
        yield name, "cluster", "spread", clustered(vectors, clusters, seed)
    for top in NEAREST:
        facts = pl.DataFrame(search(top)(pa.table({"image_embedding": vectors}))).with_row_index("id")
        facts = facts.with_columns(pl.col("id").cast(pl.Int64))
        yield f"concepts, the nearest {top}", "concepts", "random", facts
        if top == 1:
            yield "the nearest concept, in equal numbers", "concept", "random", facts


def photograph_pool(seed: int) -> Pool:
    """Copies of photographs, and the names of ImageNet's classes."""
    files = sorted(p for p in PHOTOGRAPHS.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        sys.exit(f"{PHOTOGRAPHS} is empty: `make demo` gathers the photographs")
    originals = photographs(files)
    origins, vectors = pool(originals, CLASSES, IMAGES, seed)
    labelled = np.flatnonzero(origins >= 0)
    names = sorted({original.label for original in originals})
    labels = np.array([names.index(original.label) for original in originals])[origins[labelled]]
    return labels, vectors.take(pa.array(labelled)), lambda top: _imagenet(top)


def _imagenet(top: int) -> NearestConcepts:
    return Concepts(vocabulary="imagenet", encoder="conse", top=top).load()


def vector_pool(seed: int) -> Pool:
    """Made-up embeddings of images and concepts."""
    dice = np.random.default_rng(seed)
    directions = _unit(dice.normal(size=(2 * LABELS, DIMENSIONS)))
    shares = 1 / np.arange(1, LABELS + 1)
    labels, seconds = dice.choice(LABELS, (2, VECTORS), p=shares / shares.sum())
    shown = directions[labels] + SECOND * directions[seconds]
    images, _ = from_matrix(_unit(shown) + NOISE * dice.normal(size=shown.shape))
    said, _ = from_matrix(directions + NOISE * dice.normal(size=directions.shape))
    names = [f"concept {number}" for number in range(len(directions))]
    return labels, images, lambda top: NearestConcepts(names, to_matrix(said)[0].astype(np.float16), top, {})


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


POOLS: dict[str, Callable[[int], Pool]] = {"photographs": photograph_pool, "vectors": vector_pool}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("XDG_CACHE_HOME", cache)
        main()
