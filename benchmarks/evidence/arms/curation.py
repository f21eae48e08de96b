"""Run the recipe of an arm over a seed's raw pool, publish it, and say by the truth what it has chosen.

All arms of a seed share one run: what a stage has computed for one arm is not computed again for the next one.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .statistics import effective_number
from .steps import ROOT, call

ARMS = ("random", "filtered", "balanced", "recaptioned")
RECIPES = ROOT / "benchmarks/evidence"


def recipe_of(arm: str, images: int, seed: int) -> dict[str, Any]:
    """Return an arm's recipe with the number of images to keep, and with the seed wherever it draws."""
    recipe: dict[str, Any] = yaml.safe_load((RECIPES / f"arm-{arm}.yaml").read_text())
    for stage in recipe["stages"]:
        if stage["stage"] == "clusters":
            stage["seed"] = seed
        rules = stage.get("keep", {})
        for rule in [rule for rule in rules if rule.startswith("total_")]:
            rules |= {rule: images, "seed": seed}
    return recipe


def curate(arm: str, folder: Path, images: int, seed: int) -> dict[str, Any]:
    """Choose the images of an arm: FOLDER/<arm>/shards. Return what the truth says of the choice."""
    return choose(recipe_of(arm, images, seed), arm, folder, images)


def choose(recipe: Mapping[str, Any], arm: str, folder: Path, images: int) -> dict[str, Any]:
    """Run a recipe over FOLDER/pool and publish FOLDER/<arm>/shards. Return what the truth says of the choice.

    It exits with one line if not exactly `images` are left: arms of different sizes are not compared.
    """
    (folder / f"{arm}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    call("pipeline", "run", f"{arm}.yaml", "--run", "run", folder=folder)
    call("pipeline", "publish", "--run", "run", "--out", f"{arm}/shards", folder=folder)
    chosen = _published(folder / arm / "shards")
    if len(chosen) != images:
        sys.exit(f"{folder / arm}: {len(chosen)} of {images} images are left: choose fewer images, or make more scenes")
    return composition(chosen, read_truth(folder / "pool"))


def _published(shards: Path) -> dict[int, str]:
    """Return the caption of each published image by its id."""
    import polars as pl

    rows = pl.read_parquet(shards / "data/*.parquet", columns=["id", "short_caption"])
    return dict(rows.iter_rows())


def read_truth(pool: Path) -> dict[int, dict[str, Any]]:
    """Return what is true of each image of a raw pool, by its id."""
    lines = (pool / "truth.jsonl").read_text().splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


def composition(chosen: Mapping[int, str], truth: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is true of a choice: shares 0 to 1, and the effective number of objects.

    Args:
        chosen: Captions by id.
        truth: What is true of each image, by id.
    """
    rows = [truth[id_] for id_ in chosen]
    complete = sum(caption == truth[id_]["caption"] for id_, caption in chosen.items())
    incomplete = sum(caption in truth[id_]["incomplete"] for id_, caption in chosen.items())
    defects = Counter(row["defect"] for row in rows)
    objects = Counter(name for row in rows for name in row["objects"])
    distinct = {row["original"] if row["original"] >= 0 else row["id"] for row in rows}
    return {
        "right captions": (complete + incomplete) / len(rows),
        "complete captions": complete / len(rows),
        "defects": {defect: count / len(rows) for defect, count in sorted(defects.items()) if defect},
        "distinct scenes": len(distinct) / len(rows),
        "effective objects": effective_number(list(objects.values())),
    }
