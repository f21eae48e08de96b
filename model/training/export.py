"""What a stage hands on: a checkpoint in transformers' layout, and beside it where it comes from, with sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.errors import UserError
from manifests.version import __version__
from model.training import checkpoints
from model.training.prepare import for_stage
from model.training.recipe import TrainRecipe
from model.training.stage import Stage
from model.training.world import World, whole

if TYPE_CHECKING:
    from model.processor import Processor
    from model.training.trainer import Trainer

PROVENANCE = "vl3syn_training.json"


def export(recipe: TrainRecipe, trainer: Trainer, processor: Processor, place: Path, world: World) -> None:
    """Write the model of a stage that is done into `place`/model, and delete the stage's checkpoints."""
    from model import checkpoint
    from model.training.curves import draw
    from model.training.lora import merged
    from model.training.progress import ends, read_metrics

    stage, kind = trainer.stage, getattr(torch, recipe.export_dtype)
    weights: dict[str, Any] = {}
    for name, tensor in trainer.model.state_dict().items():
        full = whole(tensor.detach())
        if world.leads:
            weights[name] = full.to("cpu", kind)
    if world.leads:
        weights = merged(weights, stage.lora) if stage.lora else weights
        aside = place / ".model.partial"
        checkpoint.save(trainer.model, aside, weights)
        for_stage(processor, stage).save_pretrained(aside)
        provenance: dict[str, Any] = {"vl3syn": __version__, "steps": trainer.step, "samples": trainer.given}
        provenance |= {
            "workers": world.size,
            "recipe": recipe.model_dump(mode="json"),
            "stage": stage.model_dump(mode="json"),
            "files": checkpoints.sums(aside, [file.name for file in sorted(aside.iterdir()) if file.is_file()]),
        }
        (aside / PROVENANCE).write_text(json.dumps(provenance, indent=2))
        checkpoints.publish(aside, place / "model")
        checkpoints.retain(place, 0)
        draw(place.parent)
        losses = [r["loss"] for r in read_metrics(place.parent) if r["stage"] == stage.name and r["kind"] == "step"]
        begin, end = ends(losses)
        print(f"{stage.name}: done, loss {begin:.4f} to {end:.4f}; exported to {place / 'model'}", flush=True)
    world.wait()


def read_provenance(model: Path) -> dict[str, Any]:
    """What an export says of itself.

    Raises:
        UserError: It cannot be read.
    """
    try:
        provenance = json.loads((model / PROVENANCE).read_text())
        if not isinstance(provenance["stage"], dict):
            raise UserError("its stage is no mapping")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{model / PROVENANCE}: damaged ({error}): delete {model} to train this stage again") from error
    return dict(provenance)


def check_done(model: Path, stage: Stage) -> None:
    """See that a stage that is done was asked for as the recipe asks now.

    Raises:
        UserError: It was not.
    """
    now = stage.model_dump(mode="json")
    for key, value in read_provenance(model)["stage"].items():
        if now.get(key) != value:
            raise UserError(
                f"{model}: stage {stage.name} is done, with {key} {value}, and the recipe says {now.get(key)}: "
                "put it back, or train into another folder"
            )


def check_export(model: Path) -> None:
    """See that the files that the next stage begins with are those that were written; earlier versions have no sums.

    Raises:
        UserError: A file is gone or has other bytes.
    """
    for name, written in read_provenance(model).get("files", {}).items():
        if not (model / name).is_file() or checkpoints.sums(model, [name])[name] != written:
            raise UserError(
                f"{model / name}: is not as its stage has written it: copy it back, or delete {model} to train that "
                "stage again"
            )
