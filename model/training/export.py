"""Export a finished stage: a checkpoint in transformers' layout, with its provenance and checksums."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.errors import UserError, reading
from model.training import checkpoints
from model.training.data.prepare import for_stage
from model.training.dist import gathered
from model.training.recipe import START_FINGERPRINT
from model.training.stage import Stage, reordered
from model.training.trained_data import TrainedData
from model.weights_io import EXACT

if TYPE_CHECKING:
    from model.training.trainer import Trainer
    from model.videollama3 import VideoLLaMA3

log = logging.getLogger("vl3syn.train")

PROVENANCE = "vl3syn_training.json"


def export(trainer: Trainer, before: TrainedData) -> None:
    """Write the model of a finished stage to the folder `model` in its folder, and delete the stage's checkpoints.

    All ranks must call this; rank 0 writes. `before` is what the earlier stages were trained on.
    """
    from manifests.version import __version__
    from model.training.curves import draw
    from model.training.lora import merged
    from model.training.metrics_log import ends, read_metrics

    recipe, stage, folder, world = trainer.recipe, trainer.stage, trainer.folder, trainer.world
    weights = dict(gathered(trainer.model.state_dict(), world, torch.float32))
    if world.is_main:
        aside = folder / ".model.partial"
        _save(trainer.model, aside, merged(weights, stage.lora) if stage.lora else weights, recipe.export_dtype)
        for_stage(trainer.processor, stage).save_pretrained(aside)
        trained = before.then(_data_of(trainer))
        provenance = {
            "vl3syn": __version__,
            "steps": trainer.step,
            "samples": trainer.consumed_samples,
            "workers": world.size,
            "recipe": recipe.model_dump(mode="json"),
            "stage": stage.model_dump(mode="json"),
            "rows": trained.rows,
            "data": trained.data,
            "files": checkpoints.checksums(
                aside, [file.relative_to(aside).as_posix() for file in sorted(aside.rglob("*")) if file.is_file()]
            ),
        }
        (aside / PROVENANCE).write_text(json.dumps(provenance, indent=2))
        checkpoints.commit(aside, folder / "model")
        checkpoints.retain(folder, 0)
        draw(folder.parent)
        losses = [r["loss"] for r in read_metrics(folder.parent) if r["stage"] == stage.name and r["kind"] == "step"]
        log.info("%s: done, loss %.4f to %.4f; exported to %s", stage.name, *ends(losses), folder / "model")
    world.barrier()


def _data_of(trainer: Trainer) -> TrainedData:
    state = trainer.initial_state
    return TrainedData(state.rows, {name: value for name, value in state.data.items() if name != START_FINGERPRINT})


def _save(model: VideoLLaMA3, folder: Path, weights: dict[str, Tensor], dtype: str) -> None:
    """Write the model for its users. The next stage begins with the float32 weights, so they are kept too."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, {name: weight.to(getattr(torch, dtype)) for name, weight in weights.items()})
    if dtype != "float32":
        model.save_pretrained(folder / EXACT, weights)


def read_provenance(model: Path) -> dict[str, Any]:
    """Return the provenance that an export stores.

    Raises:
        UserError: It cannot be read.
    """
    try:
        provenance = json.loads((model / PROVENANCE).read_text())
        if not isinstance(provenance["stage"], dict):
            raise UserError("its stage is no mapping")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{model / PROVENANCE}: damaged ({error}): delete {model} to train this stage again") from error
    return dict(provenance)


def check_done(model: Path, stage: Stage) -> None:
    """Check that a finished stage was trained with the settings that the recipe has now.

    Raises:
        UserError: A setting or the order of its keys differs.
    """
    now, before = stage.model_dump(mode="json"), read_provenance(model)["stage"]
    for key, value in before.items():
        if now.get(key) != value:
            raise UserError(
                f"{model}: stage {stage.name} is done, with {key} {value}, and the recipe says {now.get(key)}: "
                "put it back, or train into another folder"
            )
    if order := reordered(before, now):
        raise UserError(f"{model}: stage {stage.name} is done, with {order}: put it back, or train into another folder")


def check_export(model: Path) -> None:
    """Check that the files of an export are as they were written. Earlier versions stored no checksums.

    Raises:
        UserError: A file is missing or has other bytes.
    """
    for name, written in read_provenance(model).get("files", {}).items():
        if not (model / name).is_file() or checkpoints.checksums(model, [name])[name] != written:
            raise UserError(
                f"{model / name}: is not as its stage has written it: copy it back, or delete {model} to train that "
                "stage again"
            )


def trained_data(model: Path) -> TrainedData:
    """Return what an export was trained on, in all stages. It is empty if an earlier version wrote it.

    Raises:
        UserError: It cannot be read.
    """
    with reading(model / PROVENANCE):
        return TrainedData.stored(read_provenance(model))


def check_same_data(before: TrainedData, trainer: Trainer) -> None:
    """Check that a stage holds out the samples that the stages before it held out.

    Raises:
        UserError: A source of which some are held out has changed since: others would be, and these were trained on.
    """
    now = _data_of(trainer)
    for name in now.rows:
        if trainer.recipe.sources[name].num_held_out and (change := before.change(now, name)):
            raise UserError(
                f"{trainer.folder}: source {name} {change} since the stage before: samples that it trained on would be "
                "held out: put back what there was, or train into another folder"
            )
