"""What arms need before any of them begins: materials, held-out scenes, a tokenizer, and two small models.

The models are trained on clean scenes that are in no raw pool and in no held-out set.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import cut_outs
from .curation import RECIPES
from .encoder import LOSS
from .pool import clean_scenes, write_annotated
from .steps import ROOT, call, read_json

HELD_OUT, HELPERS, CACHE, PHOTOGRAPHS = "held-out", "helpers", "cache", "photographs"


@dataclass(frozen=True)
class Sizes:
    """How large an experiment is.

    Attributes:
        scenes: Images of a raw pool.
        images: Images of each arm.
        held_out: Clean scenes of the evaluation.
        steps: Training steps of an arm, each of one row of `row_tokens`.
        helper_scenes: Clean scenes that each helper learns from.
        helper_steps: Training steps of the recaptioner.
    """

    scenes: int
    images: int
    held_out: int
    steps: int
    helper_scenes: int
    helper_steps: int


def materials(folder: Path) -> cut_outs.Materials:
    """Return cut-outs and photographs; fetch and gather them into FOLDER/cache if they are not there."""
    package = cut_outs.fetch(folder / CACHE)
    photographs = folder / CACHE / PHOTOGRAPHS
    if not photographs.is_dir():
        aside = folder / CACHE / "gathered"
        shutil.rmtree(aside, ignore_errors=True)
        call(str(ROOT / "recipes/demo_pool.py"), str(aside.resolve()), folder=folder)
        (aside / PHOTOGRAPHS).rename(photographs)
        shutil.rmtree(aside)
    return cut_outs.load(package, photographs)


def write_held_out(folder: Path, sizes: Sizes, made_of: cut_outs.Materials) -> None:
    """Write the clean scenes of the evaluation: FOLDER/held-out."""
    write_annotated(clean_scenes(sizes.held_out, "held out", 0, made_of), folder / HELD_OUT)


def write_lessons(folder: Path, sizes: Sizes, made_of: cut_outs.Materials) -> None:
    """Write the recaptioner's scenes, and a tokenizer of their words: FOLDER/helpers."""
    from demo_lessons import texts, write_tokenizer

    scenes = folder / HELPERS / "scenes"
    write_annotated(clean_scenes(sizes.helper_scenes, "recaptioner", 0, made_of), scenes)
    samples = map(json.loads, (scenes / "annotations.jsonl").read_text().splitlines())
    write_tokenizer(folder / HELPERS / "tokenizer", texts(samples))


def train_clip(folder: Path, scenes: int, objects: int = len(cut_outs.NAMES)) -> dict[str, Any]:
    """Train the encoder that stands for CLIP on clean scenes: FOLDER/helpers/clip. Return its loss."""
    clip, cache = folder / HELPERS / "clip", folder / CACHE
    sources = str(cache / cut_outs.PACKAGE), str(cache / PHOTOGRAPHS)
    call("evidence.arms.encoder", str(clip), *sources, str(scenes), str(objects), folder=clip, threads=1)
    return read_json(clip / LOSS)


def train_recaptioner(folder: Path, sizes: Sizes) -> None:
    """Train the model that stands for InternVL: FOLDER/helpers/recaptioner."""
    recipe = yaml.safe_load((RECIPES / "train-recaptioner.yaml").read_text())
    train(recipe, folder / HELPERS, "recaptioner", sizes.helper_steps)


def train_arm(folder: Path, steps: int, seed: int) -> dict[str, float]:
    """Train an arm on FOLDER/shards. Return how many samples and tokens it has seen, and its seconds of training."""
    train({**students_recipe(), "seed": seed}, folder, "training", steps)
    return seen(folder / "training")


def students_recipe() -> dict[str, Any]:
    """Return the recipe of the small model that all arms train."""
    recipe: dict[str, Any] = yaml.safe_load((RECIPES / "train-arms.yaml").read_text())
    return recipe


def row_tokens() -> int:
    """Return the tokens of a step of the small model."""
    return int(students_recipe()["stages"][0]["tokens"])


def seen(training: Path) -> dict[str, float]:
    """Return how many samples and tokens a training has seen."""
    lines = [json.loads(line) for line in (training / "metrics.jsonl").read_text().splitlines()]
    done = [line for line in lines if "tokens" in line]
    return {"samples": sum(line["samples"] for line in done), "tokens": sum(line["tokens"] for line in done)}


def train(recipe: dict[str, Any], folder: Path, out: str, steps: int) -> None:
    """Train by a recipe of one stage, in a folder, with one thread."""
    recipe["stages"][0]["steps"] = steps
    (folder / f"{out}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    call("pipeline", "train", f"{out}.yaml", "--run", out, folder=folder, threads=1)
