"""We: `vl3syn run` of a recipe on the tar, into a new run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.contender import Contender, Found
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


def _contender(pool: Pool, stages: Sequence[dict[str, Any]], columns: list[str]) -> Contender:
    recipe = {"name": "peers", "pool": {"tars": str(pool.tar)}, "stages": stages}

    def command(folder: Path) -> list[str]:
        (folder / "recipe.yaml").write_text(json.dumps(recipe))  # YAML too
        return [str(Path(sys.executable).with_name("vl3syn")), "run", "recipe.yaml", "--run", "run"]

    def found(folder: Path) -> Found:
        import polars as pl

        from manifests import open_run

        kept = open_run(str(folder / "run")).manifest().filter(pl.col("status") == "kept")
        return {name: tuple(values) for name, *values in kept.select("key", *columns).collect().iter_rows()}

    return Contender(NAME, command, found)
