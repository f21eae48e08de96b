"""Near-duplicates among cut-outs on transparent ground and among photographs: in clusters, and across their borders.

Copies of cut-outs (letters, shapes, ovals out of photographs: `benchmarks/labelled.py`) and of the demo's photographs
(`make demo` gathers them) are planted: laid on white and saved as JPEG of quality 60; scaled to 90 %; cropped by 2 %
on each side. The offline encoder (`conse`) and `clusters` put them into 12 clusters; `duplicates` compares the hashes
within clusters, `border_duplicates` those of what lies between the same two clusters.

* recall: the share of the copies whose hash is within the threshold of their original's and that are compared with
  it: in one group, in clusters, and in clusters and across their borders; mean of 5 seeds of k-means;
* false: the share of the originals, in one group, whose hash is within the threshold of one with another label;
* pairs: how many pairs are compared in clusters and across borders, for each pair in clusters.

    .venv/bin/python benchmarks/cut_outs.py
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from common import PHOTOGRAPHS, machine, report
from duplicates import by_conse, facts_of
from labelled import Original, cut_outs, photographs
from PIL import Image
from planted_copies import as_jpeg, cropped, scaled

from clustering.borders import Borders
from clustering.kmeans import Clusters
from core.images import flatten

CLUSTERS, SEEDS = 12, 5
THRESHOLDS = (4, 6, 8, 10)


def as_png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


PLANTED: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG of quality 60": lambda image: as_jpeg(flatten(image), 60),
    "scaled to 90 %": lambda image: as_png(scaled(image)),
    "cropped by 2 %": lambda image: as_png(cropped(image, 0.02)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=145, help="originals of each pool (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    files = sorted(p for p in PHOTOGRAPHS.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        sys.exit(f"{PHOTOGRAPHS} is empty: `make demo` gathers the photographs")
    results: dict[str, Any] = {"machine": machine()}
    for name, originals in {"photographs": photographs(files), "cut-outs": cut_outs(files)}.items():
        chosen = np.sort(np.random.default_rng(0).permutation(len(originals))[: args.images])
        results[name] = measure([originals[n] for n in chosen])
    columns = ("pool", "one group / clusters / with borders", *(f"phash ≤ {threshold}" for threshold in THRESHOLDS))
    report(
        results,
        columns,
        [line for name in ("photographs", "cut-outs") for line in lines(name, results[name])],
        args.json,
    )


def lines(pool: str, results: dict[str, Any]) -> Iterator[Sequence[str]]:
    for kind, recall in results["recall"].items():
        yield (pool, kind, *(" / ".join(f"{share:.1%}" for share in shares) for shares in recall))
    yield (pool, "false", *(f"{share:.1%}" for share in results["false"]))
    yield (pool, f"pairs: × {results['pairs']:.2f}", *("" for _ in THRESHOLDS))


def measure(originals: Sequence[Original]) -> dict[str, Any]:
    """The recall by kind of copy and threshold, three times; the false ones by threshold; the growth of the pairs."""
    embed = by_conse()
    first = facts_of([as_png(original.image) for original in originals], embed)
    recall: dict[str, list[list[float]]] = {}
    growth = []
    for kind, change in PLANTED.items():
        second = facts_of([change(original.image) for original in originals], embed)
        apart = bits(hashes(first), hashes(second))
        seeds = zip(*(compared(first, second, seed) for seed in range(SEEDS)), strict=True)
        inside, across, more = map(np.array, seeds)
        recall[kind] = [[float(np.mean((apart <= t) & meet)) for meet in (True, inside, across)] for t in THRESHOLDS]
        growth += more.tolist()
    wrong = false(first, [original.label for original in originals])
    return {"recall": recall, "false": wrong, "pairs": float(np.mean(growth))}


def compared(first: pa.Table, second: pa.Table, seed: int) -> tuple[Any, Any, float]:
    """Which copies are in one cluster with their original, which there or across a border; the growth of the pairs."""
    table = pa.concat_tables([first, second]).select(["image_embedding"])
    stage = Clusters(clusters=CLUSTERS, seed=seed)
    placed = stage.load(stage.fit(table)[0], {"image_embedding": table.schema.field(0)})(table)
    cluster, border = placed["cluster"].to_numpy(), Borders()(placed)["border"].to_numpy()
    count = len(cluster) // 2
    inside = cluster[:count] == cluster[count:]
    return inside, inside | (border[:count] == border[count:]), 1 + pairs(border) / pairs(cluster)


def pairs(groups: Any) -> int:
    _, sizes = np.unique(groups, return_counts=True)
    return int((sizes * (sizes - 1) // 2).sum())


def hashes(facts: pa.Table) -> Any:
    """As bits, (images, 64)."""
    return np.unpackbits(facts["phash"].fill_null(0).to_numpy().view(np.uint8).reshape(-1, 8), axis=1)


def bits(one: Any, other: Any) -> Any:
    """In how many bits they differ."""
    return (one != other).sum(axis=-1)


def false(facts: pa.Table, labels: Sequence[str]) -> list[float]:
    """The share of the images that are like one with another label, by threshold."""
    codes = hashes(facts)
    apart = bits(codes[:, None], codes[None])
    others = np.array(labels)[:, None] != np.array(labels)
    later = np.tri(len(labels), k=-1, dtype=bool)
    return [float((others & later & (apart <= threshold)).any(axis=1).mean()) for threshold in THRESHOLDS]


if __name__ == "__main__":
    main()
