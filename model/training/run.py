"""Run a whole training: each stage starts from the export of the previous one. A stopped training resumes by itself.

    OUT/
      recipe.yaml                the recipe
      metrics.jsonl, tensorboard/, curves.png, curves.svg
      1-encoder/
        step-00000100/           checkpoints of the running stage (checkpoints.py)
        model/                   the export, in transformers' layout; if it exists, the stage is done
      2-alignment/ …

OUT is a local folder, or a folder on a file system that all workers share.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from core.errors import UserError
from core.paths import local_folder
from model.training.checkpoints import retain
from model.training.data.registry import write_source
from model.training.data.sampler import MixtureSampler
from model.training.data.source import Source, SourceConfig
from model.training.dist import DistContext
from model.training.export import check_done, check_export, check_same_data, export, trained_data
from model.training.flops import peak_flops
from model.training.held_out import evaluate_held_out, is_evaluation_due, is_evaluation_lost, open_held_out
from model.training.recipe import HELD_OUT_SEED, START_FINGERPRINT, Start, TrainRecipe, load_recipe, with_absolute_paths
from model.training.stage import Stage
from model.training.start import open_stage
from model.training.stop import FILE, Stop
from model.training.trained_data import FINGERPRINT, TrainedData

if TYPE_CHECKING:
    from model.training.metrics_log import MetricsLogger
    from model.training.trainer import Trainer

log = logging.getLogger("vl3syn.train")


def train(recipe: TrainRecipe, out: str | Path, world: DistContext | None = None) -> Path:
    """Train all stages that are not done yet.

    Returns:
        The folder of the last export.

    Raises:
        UserError: The recipe does not fit its data, model or output folder, `out` is no local folder, or a loss is not
            finite.
        TerminatedError: A SIGTERM arrived; a running stage has written a checkpoint.
        KeyboardInterrupt: The same for Ctrl-C. A second one ends at once, without a checkpoint.
    """
    folder = local_folder(out, "--run")
    world, recipe = world or DistContext.here(), with_absolute_paths(recipe)
    sources, held_out = open_sources(recipe), open_held_out(recipe)
    recipe = world.all_gather(_write_recipe(recipe, folder) if world.is_main else recipe)[0]
    if world.is_main:
        warn_unused(recipe)
    last_export, before = None, TrainedData()
    with Stop(folder / FILE, world.size) as stop:
        for number, stage in enumerate(recipe.stages, 1):
            stage_folder = folder / f"{number}-{stage.name}"
            if (stage_folder / "model").is_dir():
                check_done(stage_folder / "model", stage)
                if world.is_main:
                    retain(stage_folder, 0)  # left by an end between the export and their deletion
                    log.info("%s: done before, %s", stage.name, stage_folder / "model")
            else:
                if stop.agreed(world):
                    raise stop.error(f"stage {stage.name} has not begun" if world.is_main else "")
                if last_export is not None and world.is_main:
                    check_export(last_export)
                start = recipe.model if last_export is None else Start(checkpoint=str(last_export))
                trainer = _open_trainer(recipe, number, sources, start, folder=stage_folder, world=world)
                _train_stage(trainer, held_out, stop, before)
            last_export = stage_folder / "model"
            before = trained_data(last_export)
    assert last_export is not None
    return last_export


def _write_recipe(recipe: TrainRecipe, folder: Path) -> TrainRecipe:
    """Write recipe.yaml, also over an earlier one of the same training. Return the recipe with its `held_out_seed`.

    Raises:
        UserError: The folder holds another training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    before = load_recipe(file) if file.is_file() else None
    seed = HELD_OUT_SEED
    if before is not None:  # earlier versions held out by `seed`, and stored no `held_out_seed`
        seed = before.seed if before.held_out_seed is None else before.held_out_seed
        before = before.model_copy(update={"held_out_seed": seed})
    if recipe.held_out_seed is None:
        recipe = recipe.model_copy(update={"held_out_seed": seed})
    if before is not None:
        _check_same(folder, before, recipe)
    partial = folder / ".recipe.yaml.partial"
    partial.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    partial.replace(file)
    return recipe


def warn_unused(recipe: TrainRecipe) -> None:
    """Log a warning for each source that no mixture names. It is no error: recipes may share their sources."""
    for name in recipe.sources.keys() - set(recipe.used_sources):
        log.warning(
            "source %s: no stage's mixture names it: nothing of it is trained on or held out. To evaluate on its "
            "samples only, name its file as `held_out` of another source",
            name,
        )


def _check_same(folder: Path, before: TrainRecipe, now: TrainRecipe) -> None:
    """Check that nothing has changed that decides the order of samples.

    Sources and stages may be added, and some settings of a source may change, such as `roots`.
    """
    fields = {"model", "seed", "held_out_seed", "shuffle_blocks"}
    old, new = (recipe.model_dump(mode="json", include=fields) for recipe in (before, now))
    for name in now.sources:
        if name in before.sources:
            old[f"source {name}"] = _unchangeable(before.sources[name])
            new[f"source {name}"] = _unchangeable(now.sources[name])
    for setting, value in old.items():
        if value != new[setting]:
            raise UserError(
                f"{folder}: a training with {setting} {value} is there, the recipe says {new[setting]}: "
                "put it back, or train into another folder"
            )


def _unchangeable(source: SourceConfig) -> dict[str, Any]:
    """Return the settings of a source that may not change while a training is under way."""
    settings = {**write_source(source), "held_out": source.num_held_out}
    return {key: value for key, value in settings.items() if key not in source.changeable}


def open_sources(recipe: TrainRecipe) -> dict[str, Source]:
    """Open all sources that a stage's mixture names, and return them by name.

    Raises:
        UserError: A source is missing, or none of its samples can be read.
    """
    sources = {}
    for name in recipe.used_sources:
        # Memory for two windows of blocks: at the end of one, the next is already prefetched.
        sources[name] = recipe.sources[name].open(name, 2 * recipe.shuffle_blocks)
        sources[name].check()
    return sources


def open_sampler(recipe: TrainRecipe, number: int, sources: Mapping[str, Source]) -> MixtureSampler:
    """Return the order of samples of stage `number`, counted from 1.

    Raises:
        UserError: All samples of a source are held out.
    """
    stage = recipe.stages[number - 1]
    return MixtureSampler(
        [sources[name] for name in stage.mixture],
        stage.mixture,
        {name: source.num_held_out for name, source in recipe.sources.items()},
        seed=recipe.seed + number,
        held_out_seed=HELD_OUT_SEED if recipe.held_out_seed is None else recipe.held_out_seed,
        window=recipe.shuffle_blocks,
    )


def _train_stage(trainer: Trainer, held_out: Mapping[str, Source], stop: Stop, before: TrainedData) -> None:
    """Train a stage to its end, and export it. `before` is what the earlier stages were trained on."""
    recipe, world = trainer.recipe, trainer.world
    metrics = _open_metrics(trainer) if world.is_main else None
    try:
        if not trainer.step:
            check_same_data(before, trainer)
        if is_evaluation_lost(trainer, metrics):
            evaluate_held_out(trainer, held_out, metrics)
        while step := trainer.run_step():
            if metrics:
                metrics.step(step)
            stopped = stop.agreed(world)
            if stopped or step.step % recipe.save_every == 0:
                trainer.save()
            if stopped:
                line = f"stage {trainer.stage.name} has a checkpoint after step {step.step}"
                raise stop.error(line if world.is_main else "")
            if is_evaluation_due(trainer):
                evaluate_held_out(trainer, held_out, metrics)
        evaluate_held_out(trainer, held_out, metrics)
        export(trainer, before)
    finally:
        trainer.close()
        if metrics:
            metrics.close()


def _open_trainer(
    recipe: TrainRecipe,
    number: int,
    sources: Mapping[str, Source],
    start: Start,
    *,
    folder: Path,
    world: DistContext,
) -> Trainer:
    """Return the trainer of a stage, at its newest valid checkpoint, or before its first step if there is none.

    Args:
        recipe: The whole training recipe.
        number: Number of the stage, from 1.
        sources: The sources of all stages, by name.
        start: The model that the stage starts from.
        folder: Folder of the stage.
        world: The workers.
    """
    from model.training.trainer import Trainer

    stage = recipe.stages[number - 1]
    model, processor = open_stage(start, stage, recipe.seed, number)
    sampler = open_sampler(recipe, number, sources)
    data = world.all_gather(_fingerprints(recipe, stage, start) if world.is_main else None)[0]
    return Trainer(model, processor, recipe=recipe, stage=stage, sampler=sampler, folder=folder, world=world, data=data)


def _open_metrics(trainer: Trainer) -> MetricsLogger:
    from model.training.metrics_log import MetricsLogger

    recipe, stage, world = trainer.recipe, trainer.stage, trainer.world
    _log_stage(trainer)
    peak = peak_flops(world.device)
    return MetricsLogger(
        trainer.folder.parent,
        stage.name,
        steps=stage.steps,
        done=trainer.step,
        peak=peak * world.size if peak else None,
        every=recipe.print_every,
    )


def _fingerprints(recipe: TrainRecipe, stage: Stage, start: Start) -> dict[str, str]:
    """Return the fingerprint of each source of a stage, and of its starting weights."""
    sources = {FINGERPRINT.format(name): recipe.sources[name].fingerprint() for name in stage.mixture}
    return {**sources, START_FINGERPRINT: start.fingerprint()}


def _log_stage(trainer: Trainer) -> None:
    stage, sampler = trainer.stage, trainer.sampler
    learned = sum(parameter.numel() for parameter in trainer.trainable.values())
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs of {sampler.epoch_length:,} samples"
    shares = ", ".join(
        f"{source.name} {count:,} of {source_order.rows:,}"
        for source, count, source_order in zip(sampler.sources, sampler.counts, sampler.source_orders, strict=True)
    )
    log.info(f"{stage.name}: {length}; {learned:,} of {total:,} parameters learn; an epoch: {shares}")
    if trainer.step:
        log.info("  goes on after step %d", trainer.step)
