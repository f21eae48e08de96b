"""What balancing does to the diversity of labelled images, and how good the clusters are.

Labelled images with a heavy tail: each of the demo's photographs (`make demo` gathers them) is a class, and has
mildly augmented copies (crop, mirror, turn, brightness, JPEG), their number falling as 1 / rank. The offline encoder
(`conse`) embeds them.

Measured:

* the entropy of the labels, and its exponential (the effective number of classes), over a balanced choice (`total`, a
  third of the images; clusters from either start of k-means, median of 5 seeds) and over a random draw of the same size
  (median of 20);
* the purity of our clusters (the share of images that have the most common label of their cluster) and of
  scikit-learn's `KMeans` with as many clusters, on the same vectors, medians of 5 seeds; target: at most 2 % lower.

    .venv/bin/python benchmarks/diversity.py
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from common import PHOTOGRAPHS, machine, report
from PIL import Image, ImageEnhance

from clustering.kmeans import Clusters
from filters.conse import Conse
from manifests.groups import effective_number
from manifests.rules import Rule

SEEDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="augmented images (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    files = sorted(p for p in PHOTOGRAPHS.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        sys.exit(f"{PHOTOGRAPHS} is empty: `make demo` gathers the photographs")
    told = {"machine": machine(), **measure(files, args.images)}
    if args.json:
        print(json.dumps(told, indent=2))
        return
    rows = [(name, f"{value:.3f}" if isinstance(value, float) else value) for name, value in told.items()][1:]
    report(told, ("what", "measured"), rows, False)


def measure(files: Sequence[Path], images: int, clusters: int | None = None) -> dict[str, Any]:
    """Balance and clusters of augmented images of these files; what `main` prints."""
    labels = heavy_tail(len(files), images)
    vectors = embed(files, labels)
    clusters = clusters or len(files)
    third = len(labels) // 3
    dice = np.random.default_rng(0)
    drawn = statistics.median(entropy(dice.choice(labels, third, replace=False)) for _ in range(20))
    told: dict[str, Any] = {"images": len(labels), "classes": len(files), "clusters": clusters, "chosen": third}
    told |= {"label entropy, random draw (nats)": drawn, "effective classes, random draw": float(np.exp(drawn))}
    for init in ("afk-mc2", "random"):
        ours = [cluster(vectors, clusters, init, seed) for seed in range(SEEDS)]
        balanced = statistics.median(entropy(labels[choice(found, third)]) for found in ours)
        told[f"label entropy, balanced ({init})"] = balanced
        told[f"effective classes, balanced ({init})"] = float(np.exp(balanced))
        told[f"purity, ours ({init})"] = statistics.median(purity(labels, found) for found in ours)
    theirs = [by_scikit_learn(vectors, clusters, seed) for seed in range(SEEDS)]
    return told | {"purity, scikit-learn": statistics.median(purity(labels, found) for found in theirs)}


def choice(clusters: Any, total: int) -> Any:
    """The images that a balanced total keeps."""
    rows = pl.DataFrame({"id": np.arange(len(clusters)), "cluster": clusters})
    return Rule("total", "cluster", total).passes(rows).to_numpy()


def heavy_tail(classes: int, images: int) -> Any:
    """A label per image: class r has a share of the images that falls as 1 / r, and at least one."""
    shares = 1 / np.arange(1, classes + 1)
    sizes = np.maximum(1, np.round(shares / shares.sum() * images)).astype(int)
    return np.repeat(np.arange(classes), sizes)


def embed(files: Sequence[Path], labels: Any) -> pa.Array:
    """An augmented image per label, embedded: unit vectors in float16."""
    encoder = Conse().load()
    dice = np.random.default_rng(0)
    opened: dict[int, Image.Image] = {}
    parts = []
    for start in range(0, len(labels), 64):
        batch = []
        for label in labels[start : start + 64]:
            if label not in opened:
                with Image.open(files[label]) as photograph:
                    opened[label] = photograph.convert("RGB")
                opened[label].thumbnail((512, 512))
            batch.append(encoder.prepare(augmented(opened[label], dice)))
        parts.append(encoder(batch)["image_embedding"].combine_chunks())
    return pa.concat_arrays(parts)


def augmented(photograph: Image.Image, dice: np.random.Generator) -> Image.Image:
    """Mildly: 75 to 100 % of each side, mirrored or not, up to 8 degrees, brightness × 0.8 to 1.2, JPEG."""
    share = dice.uniform(0.75, 1)
    width, height = int(photograph.width * share), int(photograph.height * share)
    left = int(dice.integers(0, photograph.width - width + 1))
    top = int(dice.integers(0, photograph.height - height + 1))
    image = photograph.crop((left, top, left + width, top + height))
    if dice.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(dice.uniform(-8, 8), Image.Resampling.BILINEAR)
    image = ImageEnhance.Brightness(image).enhance(dice.uniform(0.8, 1.2))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=int(dice.integers(50, 95)))
    return Image.open(data).convert("RGB")


def cluster(vectors: pa.Array, clusters: int, init: Any, seed: int) -> Any:
    """Our clusters of the vectors."""
    stage = Clusters(clusters=clusters, init=init, seed=seed)
    table = pa.table({"image_embedding": vectors})
    fitted, _ = stage.fit(table)
    return stage.load_fitted(fitted, {"image_embedding": table.schema.field(0)})(table)["cluster"].to_numpy()


def by_scikit_learn(vectors: pa.Array, clusters: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1).astype(np.float32)
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
