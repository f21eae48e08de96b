"""Any resolution against one fixed square, at equally many visual tokens."""

from __future__ import annotations

from typing import Any

from evidence.arms import helpers

from . import shapes, training
from .lab import ANNOTATIONS, Column, Lab, Study

NAME = "resolution"

ABOUT = """\
Scenes of {shapes} pixels, with one object or two along the longer side. One arm trains on them as they are, the other
one on the same scenes squeezed to {square} × {square} pixels: as many visual tokens in the mean. Held-out scenes are
treated likewise. New models, {steps:,} steps of {tokens:,} tokens: equal tokens. The longer side of a strip is more
than {strip:g} times the shorter one, that of an oblong more than {oblong:g} times."""


def _prepare(lab: Lab) -> None:
    folder = lab.folder(NAME) / "held-out"
    lab.steps.run(
        "resolution-held-out", lambda: shapes.write_scenes(lab.sizes.held_out, "held out", lab.materials, folder)
    )


def _make(lab: Lab, seed: int) -> dict[str, Any]:
    folder = lab.folder(NAME, seed)
    lab.steps.run(
        f"resolution-{seed}", lambda: shapes.write_scenes(lab.sizes.scenes, f"scenes {seed}", lab.materials, folder)
    )
    return {}


def _learn(lab: Lab, arm: str, seed: int) -> dict[str, Any]:
    folder = lab.folder(NAME, seed) / arm
    made = training.recipe(lab, folder, folder / ANNOTATIONS, seed, visual_tokens=64)
    held_out = lab.folder(NAME) / "held-out" / arm / ANNOTATIONS
    key = f"resolution-{arm}-{seed}"
    return training.learn(lab, key, folder, made, lab.sizes.resolution_steps, held_out)


def _facts(sizes: Any) -> dict[str, Any]:
    return {
        "shapes": ", ".join(f"{width} × {height}" for width, height in shapes.SHAPES),
        "square": shapes.SQUARE,
        "strip": shapes.STRIP,
        "oblong": shapes.OBLONG,
        "steps": sizes.resolution_steps,
        "tokens": helpers.row_tokens(),
    }


STUDY = Study(
    name=NAME,
    heading="Ablation: any resolution against a fixed one",
    about=ABOUT,
    arms={"any": "any resolution", "fixed": f"fixed, {shapes.SQUARE} × {shapes.SQUARE}"},
    reference="fixed",
    columns=(
        Column("on strips", "loss of strip"),
        Column("on oblongs", "loss of oblong"),
        Column("near square", "loss of square"),
        Column("with other images", "shuffled", 2),
        Column("visual tokens a scene", "visual", 1),
        Column("scenes seen", "samples", 0),
    ),
    prepare=_prepare,
    make=_make,
    learn=_learn,
    facts=_facts,
)
