"""At most so many images of a cluster: what a quota makes of a pool with Zipf's law and near-duplicates."""

from __future__ import annotations

from functools import partial
from typing import Any

import yaml

from evidence.arms import helpers
from evidence.arms.curation import RECIPES, choose
from evidence.arms.pool import clean_scenes, raw_rows, write_annotated, write_raw
from evidence.arms.scenes import ZIPF

from . import training
from .lab import ANNOTATIONS, Column, Lab, Study

NAME = "quota"
QUOTAS = {"none": None, "20": 20, "8": 8}
"""Images of a cluster, at most."""

COPIES = 0.3
"""Share of a raw pool that are near-duplicates."""

ABOUT = """\
A raw pool of {raw:,} scenes with right captions: {objects} objects by Zipf's law (exponent {zipf:g}), and {copies:.0%}
near-duplicates of few scenes. `vl3syn run` puts them into {clusters} clusters of embeddings of a small CLIP, which has
learned from clean scenes of the same objects, and keeps at most so many of each (`per_group_cluster`); of what is left
{images:,} images are drawn. New models train {steps:,} steps of {tokens:,} tokens. The held-out scenes are clean, and
all objects are equally frequent in them."""


def _recipe() -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((RECIPES / "quota.yaml").read_text())
    return recipe


def recipe_of(arm: str, images: int, seed: int) -> dict[str, Any]:
    """Return the recipe of a quota: with its number of images, and the seed wherever it draws."""
    recipe, quota = _recipe(), QUOTAS[arm]
    _, clusters, drawn = recipe["stages"]
    clusters["seed"] = seed
    clusters["keep"] = {"per_group": quota, "order": "random", "seed": seed} if quota else {}
    drawn["keep"] = {"total_format": images, "seed": seed}
    return recipe


def _prepare(lab: Lab) -> None:
    lab.steps.run("clip", lambda: helpers.train_clip(lab.work, lab.sizes.helper_scenes, lab.sizes.objects))
    scenes = clean_scenes(lab.sizes.held_out, "held out", 0, lab.materials)
    lab.steps.run("quota-held-out", lambda: write_annotated(scenes, lab.folder(NAME) / "held-out"))


def _make(lab: Lab, seed: int) -> dict[str, Any]:
    folder, images = lab.folder(NAME, seed), lab.sizes.images
    rows = partial(raw_rows, lab.sizes.raw, seed, lab.materials, {"near-duplicate": COPIES}, incomplete=0)
    lab.steps.run(f"quota-{seed}", lambda: write_raw(rows(), folder / "pool"))

    def chosen(arm: str) -> dict[str, Any]:
        return lab.steps.run(f"quota-{arm}-{seed}", lambda: choose(recipe_of(arm, images, seed), arm, folder, images))

    return {arm: chosen(arm) for arm in QUOTAS}


def _learn(lab: Lab, arm: str, seed: int) -> dict[str, Any]:
    folder = lab.folder(NAME, seed) / arm
    made = training.recipe(lab, folder, folder / ANNOTATIONS, seed)
    made["sources"] = {"captions": {"shards": "shards", "caption": "short"}}
    held_out = lab.folder(NAME) / "held-out" / ANNOTATIONS
    return training.learn(lab, f"quota-{arm}-{seed}", folder, made, lab.sizes.quota_steps, held_out)


def _facts(sizes: Any) -> dict[str, Any]:
    clusters = _recipe()["stages"][1]["clusters"]
    return {
        **{"raw": sizes.raw, "objects": sizes.objects, "images": sizes.images, "steps": sizes.quota_steps},
        **{"zipf": ZIPF, "copies": COPIES, "clusters": clusters, "tokens": helpers.row_tokens()},
    }


STUDY = Study(
    name=NAME,
    heading="Ablation: at most so many images of a cluster",
    about=ABOUT,
    arms={name: "no limit" if quota is None else f"at most {quota}" for name, quota in QUOTAS.items()},
    reference="none",
    columns=(
        Column("with other images", "shuffled", 2),
        Column("effective objects", "effective objects", 1),
        Column("distinct scenes", "distinct scenes", 1, percent=True),
        Column("samples seen", "samples", 0),
    ),
    prepare=_prepare,
    make=_make,
    learn=_learn,
    facts=_facts,
)
