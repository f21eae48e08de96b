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

import torch
import yaml

from core.errors import UserError
from core.paths import local_folder
from model.training.data.prepare import for_stage
from model.training.data.registry import write_source
from model.training.data.sampler import MixtureSampler
from model.training.data.source import SelectedRows, Source, SourceConfig
from model.training.dist import DistContext
from model.training.export import check_done, check_export, export
from model.training.flops import peak_flops
from model.training.recipe import Start, TrainRecipe, load_recipe, with_absolute_paths
from model.training.stage import Stage
from model.training.stop import FILE, Stop, TerminatedError

if TYPE_CHECKING:
    from model.processor import Processor
    from model.training.metrics_log import MetricsLogger
    from model.training.trainer import Trainer
    from model.videollama3 import VideoLLaMA3

log = logging.getLogger("vl3syn.train")

_MAX_NEW_TOKENS = 64  # maximum tokens of an answer that is generated during training


def train(recipe: TrainRecipe, out: str | Path, world: DistContext | None = None) -> Path:
    """Train all stages that are not done yet.

    Returns:
        The folder of the last export.

    Raises:
        UserError: The recipe does not fit its data, model or output folder, `out` is no local folder, or a loss is not
            finite.
        TerminatedError: A SIGTERM arrived; a running stage has written a checkpoint.
    """
    folder = local_folder(out, "--run")
    world, recipe = world or DistContext.here(), with_absolute_paths(recipe)
    sources = open_sources(recipe)
    if world.is_main:
        _begin(recipe, folder)
    world.barrier()
    done = None
    with Stop(folder / FILE, world.size) as stop:
        for number, stage in enumerate(recipe.stages, 1):
            stage_folder = folder / f"{number}-{stage.name}"
            if (stage_folder / "model").is_dir():
                check_done(stage_folder / "model", stage)
                if world.is_main:
                    log.info("%s: done before, %s", stage.name, stage_folder / "model")
            else:
                if stop.agreed(world):
                    raise TerminatedError(f"stage {stage.name} has not begun" if world.is_main else "")
                if done is not None and world.is_main:
                    check_export(done)
                start = recipe.model if done is None else Start(checkpoint=str(done))
                _train_stage(_open_trainer(recipe, number, sources, start, folder=stage_folder, world=world), stop)
            done = stage_folder / "model"
    assert done is not None
    return done


def _begin(recipe: TrainRecipe, folder: Path) -> None:
    """Write recipe.yaml.

    Raises:
        UserError: The folder holds another training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, written = folder / "recipe.yaml", recipe.model_dump(mode="json")
    if file.is_file():
        _check_same(folder, load_recipe(file), recipe)
    aside = folder / ".recipe.yaml.partial"
    aside.write_text(yaml.safe_dump(written, sort_keys=False))
    aside.replace(file)


def _check_same(folder: Path, before: TrainRecipe, now: TrainRecipe) -> None:
    """Check that nothing has changed that decides the order of samples.

    Sources and stages may be added, and some settings of a source may change, such as `roots`.
    """
    fields = {"model", "seed", "shuffle_blocks"}
    stored, written = (recipe.model_dump(mode="json", include=fields) for recipe in (before, now))
    for name in [name for name in now.sources if name in before.sources]:
        stored[f"source {name}"], written[f"source {name}"] = (
            _unchangeable(recipe.sources[name]) for recipe in (before, now)
        )
    for what, was in stored.items():
        if was != written[what]:
            raise UserError(
                f"{folder}: a training with {what} {was} is there, the recipe says {written[what]}: "
                "put it back, or train into another folder"
            )


def _unchangeable(source: SourceConfig) -> dict[str, Any]:
    return {key: value for key, value in write_source(source).items() if key not in source.changeable}


def open_sources(recipe: TrainRecipe) -> dict[str, Source]:
    """Open all sources that a stage's mixture names, and return them by name.

    Raises:
        UserError: A source is missing, or none of its samples can be read.
    """
    sources = {}
    for name in {name: None for stage in recipe.stages for name in stage.mixture}:
        sources[name] = recipe.sources[name].open(name, 2 * recipe.shuffle_blocks)
        sources[name].check()
    return sources


def _train_stage(trainer: Trainer, stop: Stop) -> None:
    """Train a stage to its end, and export it."""
    recipe, world = trainer.recipe, trainer.world
    metrics = _open_metrics(trainer) if world.is_main else None
    try:
        while step := trainer.run_step():
            if metrics:
                metrics.step(step)
            terminated = stop.agreed(world)
            if terminated or step.step % recipe.save_every == 0:
                trainer.save()
            if terminated:
                line = f"stage {trainer.stage.name} has a checkpoint after step {step.step}"
                raise TerminatedError(line if world.is_main else "")
            if step.step % recipe.evaluate_every == 0 and step.progress < 1:
                _evaluate(trainer, metrics)
        _evaluate(trainer, metrics)
        export(trainer)
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
    """Open the stage with this number, from 1, before its first step or at its newest checkpoint."""
    from model.training.lora import add_adapters
    from model.training.trainer import Trainer

    stage = recipe.stages[number - 1]
    model, processor = open_start(start, recipe.seed)
    if stage.lora:
        torch.manual_seed(recipe.seed + number)
        add_adapters(model, stage.lora)
    held_out = {name: source.held_out for name, source in recipe.sources.items()}
    chosen = [sources[name] for name in stage.mixture]
    order = MixtureSampler(
        chosen,
        stage.mixture,
        held_out,
        seed=recipe.seed + number,
        held_out_seed=recipe.seed,
        window=recipe.shuffle_blocks,
    )
    data = world.all_gather(_fingerprints(recipe, stage, start) if world.is_main else None)[0]
    return Trainer(model, processor, recipe=recipe, stage=stage, order=order, folder=folder, world=world, data=data)


def _open_metrics(trainer: Trainer) -> MetricsLogger:
    from model.training.metrics_log import MetricsLogger

    recipe, stage, world = trainer.recipe, trainer.stage, trainer.world
    _announce(trainer)
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
    sources = {f"source {name}": recipe.sources[name].fingerprint() for name in stage.mixture}
    return {**sources, "the checkpoint that it begins with": start.fingerprint()}


def open_start(start: Start, seed: int) -> tuple[VideoLLaMA3, Processor]:
    """Return the model, with weights in fp32, and the processor that a training starts with.

    Raises:
        UserError: A folder is not a valid checkpoint.
    """
    from model.config import preset
    from model.processor import Processor
    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(seed)
    if start.checkpoint:
        return VideoLLaMA3.from_pretrained(start.checkpoint, torch.float32), Processor.from_pretrained(start.checkpoint)
    if start.preset:
        processor = Processor.from_pretrained(start.tokenizer) if start.tokenizer else Processor.tiny()
        return VideoLLaMA3(preset(start.preset)), processor
    assert start.vision
    assert start.language
    return VideoLLaMA3.from_parts(start.vision, start.language), Processor.from_pretrained(start.language)


def _announce(trainer: Trainer) -> None:
    stage, order = trainer.stage, trainer.order
    learned = sum(parameter.numel() for parameter in trainer.learning.values())
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs of {order.epoch_length:,} samples"
    shares = ", ".join(
        f"{s.name} {n:,} of {p.rows:,}" for s, n, p in zip(order.sources, order.counts, order.passes, strict=True)
    )
    log.info(f"{stage.name}: {length}; {learned:,} of {total:,} parameters learn; an epoch: {shares}")
    if trainer.step:
        log.info("  goes on after step %d", trainer.step)


def _held_out(order: MixtureSampler) -> dict[str, SelectedRows]:
    """Return the held-out samples of each source that has any, by its name."""
    pairs = zip(order.sources, order.passes, strict=True)
    return {source.name: SelectedRows(source, rows.tolist()) for source, p in pairs if len(rows := p.held_out)}


def _evaluate(trainer: Trainer, metrics: MetricsLogger | None) -> None:
    """Compute held-out losses and generate a few answers. All ranks run this; rank 0 logs the results.

    Without held-out samples, the first training samples are answered.
    """
    from model.evaluate import Answer, generate_answers, held_out_loss

    model, order, count = trainer.model, trainer.order, trainer.recipe.num_eval_generations
    processor = for_stage(trainer.processor, trainer.stage)
    selected = _held_out(order)
    held_out = {name: list(rows) for name, rows in selected.items()}
    with trainer.precision():
        losses = {name: held_out_loss(model, processor, samples) for name, samples in held_out.items()}
    questions = [sample for samples in zip(*held_out.values(), strict=False) for sample in samples][:count]
    if not held_out:
        first = [order(index) for index in range(count)]
        questions = [sample for number, row in first for sample in SelectedRows(order.sources[number], [row])]
    with trainer.precision():
        answers = list(generate_answers(model, processor, questions, _MAX_NEW_TOKENS))
    if metrics and losses:
        skipped = [line for name in held_out for line in (*selected[name].skipped, *losses[name].skipped)]
        metrics.skipped_held_out(skipped)
        metrics.held_out(trainer.step, {name: loss.mean for name, loss in losses.items()})
    if metrics:
        metrics.answers(trainer.step, [(a.sample, a.text, a.reference) for a in answers if isinstance(a, Answer)])
