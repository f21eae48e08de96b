"""Train the small model on annotations, evaluate it, and make what all studies need before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from captioners.prompts import choose, read_prompts
from evidence.arms import helpers
from evidence.arms.helpers import HELPERS
from evidence.arms.pool import clean_scenes, conversation, write_annotated
from evidence.arms.scenes import caption, frequencies, random_scene
from evidence.arms.steps import call, read_json

from . import films, shapes
from .lab import ANNOTATIONS, Lab

_TEXTS = 2000  # captions of each kind that the tokenizer learns from: each object's name occurs in many of them


def recipe(lab: Lab, folder: Path, annotations: Path, seed: int, **stage: Any) -> dict[str, Any]:
    """Return the recipe of the small model for a folder, on annotations, with settings of its stage."""
    made = helpers.students_recipe()
    made["seed"] = seed
    made["model"]["tokenizer"] = os.path.relpath(lab.tokenizer, folder)
    made["sources"] = {"captions": {"annotations": os.path.relpath(annotations, folder)}}
    made["stages"][0] |= stage
    return made


def train(made: dict[str, Any], folder: Path, steps: int) -> dict[str, Any]:
    """Train by a recipe: FOLDER/training. Return the samples and tokens that it has seen."""
    folder.mkdir(parents=True, exist_ok=True)
    helpers.train(made, folder, "training", steps)
    return helpers.seen(folder / "training")


def evaluate(folder: Path, model: Path, annotations: Path, word: str | None = None) -> dict[str, Any]:
    """Evaluate a model on held-out samples, in a process with one thread. See `scores.score`."""
    result = folder / "scores.json"
    arguments = [str(model), str(annotations), str(result), *([] if word is None else [word])]
    call("evidence.ablation.scores", *arguments, folder=folder, threads=1)
    return read_json(result)


def learn(
    lab: Lab, key: str, folder: Path, made: dict[str, Any], steps: int, held_out: Path, word: str | None = None
) -> dict[str, Any]:
    """Train and evaluate, as two steps. Return the samples and tokens seen, and the scores."""
    done = lab.steps.run(f"{key}-training", lambda: train(made, folder, steps))
    model = folder / "training/1-captions/model"
    scores = lab.steps.run(f"{key}-scores", lambda: evaluate(folder, model, held_out, word))
    return done | scores | {"seconds": done["seconds"]}


def write_lessons(lab: Lab) -> None:
    """Write the still scenes that models of films have learned from, and a tokenizer of the words of all studies."""
    from demo_lessons import texts, write_tokenizer

    folder = lab.work / HELPERS
    scenes = clean_scenes(lab.sizes.helper_scenes, "base", 0, lab.materials)
    write_annotated(scenes, folder / "scenes", [shapes.QUESTION])
    write_tokenizer(lab.tokenizer, texts(_said(list(lab.materials.objects))))


def _said(names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield conversations with all words of all studies."""
    random, questions = Random("words"), [*read_prompts("short"), shapes.QUESTION, films.QUESTION]
    for number in range(_TEXTS):
        scene = random_scene(names, frequencies(names, 0), random)
        size = shapes.SHAPES[number % len(shapes.SHAPES)]
        for said in (caption(scene), shapes.caption_of(scene, size), films.caption(films.random_film(names, random))):
            yield {"conversations": conversation(choose(questions, number), said)}


def train_base(lab: Lab) -> None:
    """Train the model that has learned from still scenes."""
    folder = lab.work / HELPERS
    helpers.train(recipe(lab, folder, folder / "scenes" / ANNOTATIONS, 0), folder, "base", lab.sizes.helper_steps)
