"""Load the model of a step's checkpoint, to look at it while its stage is under way.

Such a checkpoint has only what is trained. The rest is what the stage began with: the export of the stage before, or
the start of the training, as OUT/recipe.yaml names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.errors import UserError, reading
from core.yaml_text import load_yaml
from model.training.checkpoints import is_checkpoint, verify
from model.training.data.prepare import for_stage
from model.training.recipe import START_FINGERPRINT, Start
from model.training.stage import Stage
from model.training.start import open_stage

if TYPE_CHECKING:
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3


def is_step(folder: Path) -> bool:
    """Return whether a folder is a step's checkpoint."""
    return is_checkpoint(folder) and (folder / "state.json").is_file()


def recipe_of(step: Path) -> dict[str, Any]:
    """Return the recipe of a step's training, as its file has it. Classes that it names are not imported.

    Raises:
        UserError: It cannot be read: the checkpoint lies elsewhere than where it was written.
    """
    file = step.absolute().parents[1] / "recipe.yaml"
    if not file.is_file():
        raise UserError(f"{step}: its training is not around it: {file}: no such file: copy the whole training")
    with reading(file):
        return dict(load_yaml(file.read_bytes(), str(file)))


def load_step(step: Path) -> tuple[VideoLLaMA3, Processor]:
    """Load the model of a step's checkpoint, in float32, and the processor of its stage.

    Raises:
        UserError: The checkpoint is damaged, or what its stage began with is gone or has changed.
    """
    from safetensors.torch import load_file

    recipe, state = recipe_of(step), verify(step)
    stage = Stage.model_validate(state.stage)
    start = _start(step, recipe)
    if state.data.get(START_FINGERPRINT, start.fingerprint()) != start.fingerprint():
        raise UserError(f"{step}: {START_FINGERPRINT} has changed since its stage began: put back what there was")
    model, processor = open_stage(start, stage, recipe["seed"], _number(step))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in load_file(step / "weights.safetensors").items():
            parameters[name].copy_(weight)
    return model.eval(), for_stage(processor, stage)


def _start(step: Path, recipe: Mapping[str, Any]) -> Start:
    """Return what the stage of a step's checkpoint begins with."""
    before = export_before(step, recipe)
    return Start(checkpoint=str(before)) if before else Start.model_validate(recipe["model"])


def export_before(step: Path, recipe: Mapping[str, Any]) -> Path | None:
    """Return the export of the stage before that of a step's checkpoint; None in the first stage."""
    number = _number(step) - 1
    folder = step.absolute().parents[1]
    return folder / f"{number}-{recipe['stages'][number - 1]['name']}" / "model" if number else None


def _number(step: Path) -> int:
    """Return the number of the stage of a step's checkpoint, from 1."""
    return int(step.absolute().parent.name.partition("-")[0])
