"""Packing against padding: the same loss, at what cost?"""

from __future__ import annotations

from typing import Any

import yaml

from evidence.arms.steps import call, read_json

from . import resolution, training
from .lab import ANNOTATIONS, Column, Lab, Study

NAME = "packing"
BATCH = 16
"""Samples of a step."""

ABOUT = """\
The scenes of many shapes of the ablation of resolutions, as they are, at merge size 1, that of the published model
for images. So samples differ in length. Each of {steps:,} steps has the same {batch} samples in all arms. Our trainer
always packs, so a loop of its own (`ablation/batches.py`) trains three arms from the same weights: the class of
transformers on padded rows, the same class on one packed row, and our model on the same row. On a CPU the class
attends over the whole packed row and masks all other samples; our model attends within each sample. The loss should
be equal but for rounding. Useful tokens are all that are not padding. A core-second is a second of CPU time of the
training, without decoding, while other work keeps the other core busy."""


def _learn(lab: Lab, arm: str, seed: int) -> dict[str, Any]:
    folder = lab.folder(NAME, seed) / arm
    scenes = lab.folder(resolution.NAME)
    made = training.recipe(
        lab,
        folder,
        scenes / f"seed-{seed}/any" / ANNOTATIONS,
        seed,
        image_merge=1,
        visual_tokens=256,
        steps=lab.sizes.packing_steps,
    )

    def train() -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "batches.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
        call("evidence.ablation.batches", arm, "batches.yaml", "out", str(BATCH), folder=folder, threads=1)
        cost = read_json(folder / "out/cost.json")
        return cost | {"rate": cost["tokens"] / cost["core seconds"]}

    done = lab.steps.run(f"packing-{arm}-{seed}-training", train)
    held_out = scenes / "held-out/any" / ANNOTATIONS
    scores = lab.steps.run(
        f"packing-{arm}-{seed}-scores", lambda: training.evaluate(folder, folder / "out/model", held_out)
    )
    return done | scores | {"seconds": done["seconds"]}


STUDY = Study(
    name=NAME,
    heading="Ablation: packing against padding",
    about=ABOUT,
    arms={"padded": "padded, transformers", "packed": "packed, transformers", "ours": "packed, this project"},
    reference="padded",
    columns=(
        Column("with other images", "shuffled", 2),
        Column("padding", "padding", 1, percent=True),
        Column("useful tokens a core-second", "rate", 0),
        Column("tokens seen", "tokens", 0),
    ),
    prepare=resolution.STUDY.prepare,  # the same scenes
    make=resolution.STUDY.make,
    learn=_learn,
    facts=lambda sizes: {"batch": BATCH, "steps": sizes.packing_steps},
    digits=5,
)
