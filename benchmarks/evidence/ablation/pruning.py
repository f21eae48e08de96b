"""The threshold of the frame pruner DiffFP: what a higher one costs, and what it saves."""

from __future__ import annotations

import math
import os
from typing import Any

from evidence.arms.scenes import SIDE

from . import films, training
from .lab import ANNOTATIONS, Column, Lab, Study

NAME = "pruning"
THRESHOLDS = {"off": None, "0.1": 0.1, "4": 4.0, "64": 64.0}
"""Thresholds in the reference's unit, twice the grey levels. The published one is 0.1."""

BATCH = 8
"""Films of a step, with every threshold."""

_PATCHES = films.SECONDS * (SIDE // 14) ** 2  # of a film, before pruning

ABOUT = """\
Films of {frames} sampled frames: an object moves from the middle to the left, right, top or bottom. The caption says
which and where: *An owl on a grey ground moves left.* The first frame does not tell where: who sees only that one has
at best {blind:.2f} nats a film behind *moves*. Frames have grain of {grain:g} grey levels and are encoded by x264 at
CRF {crf}, so what stands still differs a little from frame to frame. A model that has learned from still scenes goes on
with films, at the same threshold in training and test. All thresholds see the same {batch} films in each of {steps:,}
steps: equal samples. The loss shows what pruning takes away, the tokens show what it saves."""


def _prepare(lab: Lab) -> None:
    lab.steps.run("base", lambda: training.train_base(lab))
    lab.steps.run(
        "pruning-held-out",
        lambda: films.write_films(lab.sizes.held_out, "held out", lab.materials, lab.folder(NAME) / "held-out"),
    )


def _make(lab: Lab, seed: int) -> dict[str, Any]:
    folder = lab.folder(NAME, seed) / "films"
    lab.steps.run(f"pruning-{seed}", lambda: films.write_films(lab.sizes.films, f"films {seed}", lab.materials, folder))
    return {}


def _learn(lab: Lab, arm: str, seed: int) -> dict[str, Any]:
    parent, threshold = lab.folder(NAME, seed), THRESHOLDS[arm]
    folder = parent / arm
    made = training.recipe(
        lab,
        folder,
        parent / "films" / ANNOTATIONS,
        seed,
        pruning=None if threshold is None else {"threshold": threshold},
        tokens=BATCH * 256,  # never reached: the patches, which pruning does not change, end a row after BATCH films
        patches=BATCH * _PATCHES,
        visual_tokens=128,
    )
    made["model"] = {"checkpoint": os.path.relpath(lab.base, folder)}
    held_out = lab.folder(NAME) / "held-out" / ANNOTATIONS
    return training.learn(lab, f"pruning-{arm}-{seed}", folder, made, lab.sizes.pruning_steps, held_out, films.MOVES)


STUDY = Study(
    name=NAME,
    heading="Ablation: the threshold of frame pruning",
    about=ABOUT,
    arms={
        name: "off" if value is None else f"{name}{' (published)' * (value == 0.1)}"
        for name, value in THRESHOLDS.items()
    },
    reference="off",
    columns=(
        Column("nats a film behind *moves*", "behind"),
        Column("with other films", "shuffled", 2),
        Column("visual tokens a film", "visual", 1),
        Column("kept", "kept", 1, percent=True),
        Column("films seen", "samples", 0),
        Column("tokens seen", "tokens", 0),
    ),
    prepare=_prepare,
    make=_make,
    learn=_learn,
    facts=lambda sizes: {
        "frames": films.SECONDS,
        "blind": math.log(len(films.DIRECTIONS)),
        "grain": films.GRAIN,
        "crf": films.CRF,
        "batch": BATCH,
        "steps": sizes.pruning_steps,
    },
)
