"""We: `vl3syn run` of a recipe on the tar, into a new run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers.contender import DIGITS, Contender, Found
from peers.pool import MOST, Pool
from peers.weights import Weights

NAME = "vl3syn"
RATIO = {"stage": "aspect_ratio", "keep": {"max": MOST}}


def ratios(pool: Pool) -> Contender:
    return _contender(pool, [RATIO], ["aspect_ratio"])


def scores(pool: Pool, weights: Weights) -> Contender:
    encoder = {"encoder": str(weights.open_clip)}
    texts = {"texts": ["alt_text"]}
    stages = [
        RATIO,
        {"stage": "clip", **encoder},
        {"stage": "clip_text", **encoder, **texts},
        {"stage": "aesthetic", "weights": str(weights.head), **encoder},
        {"stage": "similarity", **texts},
    ]
    return _contender(pool, stages, ["aesthetic", "alt_similarity"])


def copies(pool: Pool) -> Contender:
    return _contender(pool, [{"stage": "hashes", "keep": {"per_group_content_hash": 1, "order": "lowest_offset"}}], [])


def downloads(programs: Path, urls: Sequence[str]) -> Contender:
    """`download` by the img2dataset of that environment, with as many threads as the peer has for each core."""
    settings = {"allow": ["127.0.0.1"], "concurrency": 32, "per_host": 32}
    stage = {"stage": "download", "engine": {"python": str(programs / "python")}, **settings}

    def command(folder: Path) -> list[str]:
        (folder / "urls.txt").write_text("\n".join(urls))
        return _run(folder, {"urls": "urls.txt"}, [stage])

    def found(folder: Path) -> Found:
        kept = _kept(folder, ["url", "image_sha256"])
        return {url.rpartition("/")[2]: (int(digest[:DIGITS], 16),) for url, digest in kept}

    return Contender(NAME, command, found)


def _contender(pool: Pool, stages: Sequence[dict[str, Any]], columns: list[str]) -> Contender:
    def command(folder: Path) -> list[str]:
        return _run(folder, {"tars": str(pool.tar)}, stages)

    def found(folder: Path) -> Found:
        return {name: tuple(values) for name, *values in _kept(folder, ["key", *columns])}

    return Contender(NAME, command, found)


def _run(folder: Path, pool: dict[str, str], stages: Sequence[dict[str, Any]]) -> list[str]:
    """Write the recipe, and return the command that runs it."""
    recipe = {"name": "peers", "pool": pool, "stages": stages}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # YAML too
    return [str(Path(sys.executable).with_name("vl3syn")), "run", "recipe.yaml", "--run", "run"]


def _kept(folder: Path, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Return these columns of the rows that the run kept."""
    import polars as pl

    from manifests import open_run

    kept = open_run(str(folder / "run")).manifest().filter(pl.col("status") == "kept")
    return kept.select(columns).collect().iter_rows()
