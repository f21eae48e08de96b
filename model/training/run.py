"""A whole training: stage after stage, each from what the one before has exported; goes on by itself after a stop.

    OUT/
      recipe.yaml                what was asked for
      metrics.jsonl, tensorboard/, curves.png, curves.svg
      1-encoder/
        step-00000100/           checkpoints of the stage under way (checkpoints.py)
        model/                   what it handed on, in transformers' layout; the stage is done when this is there
      2-alignment/ …

OUT is a local folder, or one on a file system that all workers share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from core.errors import UserError
from model.training.annotations import AnnotationSource
from model.training.export import check_done, check_export, export
from model.training.fingerprint import fingerprints
from model.training.flops import peak_flops
from model.training.order import Order, Source
from model.training.prepare import for_stage
from model.training.recipe import Start, TrainRecipe, anchored, load_recipe
from model.training.samples import Sample
from model.training.shards import ShardSource
from model.training.stage import Stage
from model.training.stop import FILE, Stop, TerminatedError
from model.training.world import World

if TYPE_CHECKING:
    from model.processor import Processor
    from model.training.progress import Progress
    from model.training.trainer import Trainer
    from model.videollama3 import VideoLLaMA3

_SPOKEN = 64  # tokens of an answer that is asked for on the way


def train(recipe: TrainRecipe, out: str | Path, world: World | None = None) -> Path:
    """Go through the stages that are not done yet.

    Returns:
        The folder of the last export.

    Raises:
        UserError: Something in the recipe does not fit what is there, with what to do; or a loss that is no number.
        TerminatedError: After a SIGTERM, when a checkpoint was written.
    """
    world, folder, recipe = world or World.here(), Path(out), anchored(recipe)
    sources = open_sources(recipe)
    if world.leads:
        _begin(recipe, folder)
    world.wait()
    done = None
    with Stop(folder / FILE, world.size) as stop:
        for number, stage in enumerate(recipe.stages, 1):
            place = folder / f"{number}-{stage.name}"
            if (place / "model").is_dir():
                check_done(place / "model", stage)
                if world.leads:
                    print(f"{stage.name}: done before, {place / 'model'}", flush=True)
            else:
                if stop.agreed(world):
                    raise TerminatedError(f"stage {stage.name} has not begun" if world.leads else "")
                _stage(recipe, stage, number, sources, place, done, world, stop)
            done = place / "model"
    assert done is not None
    return done


def _begin(recipe: TrainRecipe, folder: Path) -> None:
    """Write the recipe down.

    Raises:
        UserError: Another training is in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, told = folder / "recipe.yaml", recipe.model_dump(mode="json")
    if file.is_file():
        _check_same(folder, load_recipe(file).model_dump(mode="json"), told)
    aside = folder / ".recipe.yaml.partial"
    aside.write_text(yaml.safe_dump(told, sort_keys=False))
    aside.replace(file)


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """What decides which samples come when must stay; sources and stages may be added, and `roots` may change."""
    pairs = [(key, before.get(key), now[key]) for key in ("model", "seed", "shuffle_blocks")]
    for name, told in now["sources"].items():
        was = before["sources"].get(name, told)
        pairs.append((f"source {name}", {**was, "roots": told["roots"]}, told))
    for what, was, told in pairs:
        if was != told:
            raise UserError(
                f"{folder}: a training with {what} {was} is there, the recipe says {told}: "
                "put it back, or train into another folder"
            )


def open_sources(recipe: TrainRecipe) -> dict[str, Source]:
    """The sources that stages ask for, by name.

    Raises:
        UserError: One is not there, or none of its samples can be read.
    """
    return {name: _source(recipe, name) for name in {name: None for s in recipe.stages for name in s.mixture}}


def _source(recipe: TrainRecipe, name: str) -> Source:
    asked, kept = recipe.sources[name], 2 * recipe.shuffle_blocks
    if asked.shards:
        return ShardSource(name, asked.shards, asked.caption, kept)
    assert asked.annotations is not None
    source = AnnotationSource(name, asked.annotations, asked.media, kept, asked.roots)
    source.check()
    return source


def _stage(
    recipe: TrainRecipe,
    stage: Stage,
    number: int,
    sources: dict[str, Source],
    place: Path,
    before: Path | None,
    world: World,
    stop: Stop,
) -> None:
    from model.training.lora import add_adapters
    from model.training.progress import Progress
    from model.training.trainer import Trainer

    start = recipe.model if before is None else Start(checkpoint=str(before))
    if before is not None and world.leads:
        check_export(before)
    model, processor = open_start(start, recipe.seed)
    if stage.lora:
        torch.manual_seed(recipe.seed + number)
        add_adapters(model, stage.lora)
    held = {name: source.held_out for name, source in recipe.sources.items()}
    chosen = [sources[name] for name in stage.mixture]
    order = Order(chosen, stage.mixture, held, recipe.seed + number, recipe.seed, recipe.shuffle_blocks)
    data = world.gathered(fingerprints(recipe.sources, stage, start) if world.leads else None)[0]
    trainer = Trainer(model, processor, recipe, stage, order, place, world, data)
    peak = peak_flops(world.device)
    progress = None
    if world.leads:
        _announce(stage, trainer, order)
        told = peak * world.size if peak else None
        progress = Progress(place.parent, stage.name, stage.steps, trainer.step, told, recipe.print_every)
    look = for_stage(processor, stage)
    try:
        while step := trainer.run_step():
            if progress:
                progress.step(step)
            terminated = stop.agreed(world)
            if terminated or step.step % recipe.save_every == 0:
                trainer.save()
            if terminated:
                line = f"stage {stage.name} has a checkpoint after step {step.step}"
                raise TerminatedError(line if world.leads else "")
            if step.step % recipe.evaluate_every == 0 and step.progress < 1:
                _look(recipe, trainer, look, order, progress)
        _look(recipe, trainer, look, order, progress)
        export(recipe, trainer, processor, place, world)
    finally:
        trainer.close()
        if progress:
            progress.close()


def open_start(start: Start, seed: int) -> tuple[VideoLLaMA3, Processor]:
    """What a training begins with, weights in fp32.

    Raises:
        UserError: A folder is not what it should be.
    """
    from model.checkpoint import from_parts
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
    return from_parts(start.vision, start.language), Processor.from_pretrained(start.language)


def _announce(stage: Stage, trainer: Trainer, order: Order) -> None:
    learned = sum(parameter.numel() for parameter in trainer.learning.values())
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs of {order.epoch_length:,} samples"
    shares = ", ".join(
        f"{s.name} {n:,} of {p.rows:,}" for s, n, p in zip(order.sources, order.counts, order.passes, strict=True)
    )
    print(f"{stage.name}: {length}; {learned:,} of {total:,} parameters learn; an epoch: {shares}", flush=True)
    if trainer.step:
        print(f"  goes on after step {trainer.step}", flush=True)


def _held_out(order: Order) -> Iterator[tuple[str, list[Sample]]]:
    """Samples that are not trained on, by source; bad ones are left out."""
    for source, passes in zip(order.sources, order.passes, strict=True):
        if len(passes.held_out):
            yield source.name, list(_good(source, passes.held_out.tolist()))


def _good(source: Source, rows: Sequence[int]) -> Iterator[Sample]:
    for row in rows:
        try:
            yield source.sample(row)
        except ValueError:
            continue


def _look(recipe: TrainRecipe, trainer: Trainer, processor: Processor, order: Order, progress: Progress | None) -> None:
    """Held-out losses, and a few answers; all workers do it, the first one tells."""
    from model.training.evaluation import Answer, generate_answers, held_out_loss

    held = dict(_held_out(order))
    with trainer.precision():
        losses = {name: held_out_loss(trainer.model, processor, samples).mean for name, samples in held.items()}
    asked = [sample for samples in zip(*held.values(), strict=False) for sample in samples][: recipe.ask]
    if not held and recipe.ask:
        rows = [order(index) for index in range(recipe.ask)]
        asked = [sample for number, row in rows for sample in _good(order.sources[number], [row])]
    with trainer.precision():
        answers = list(generate_answers(trainer.model, processor, asked, _SPOKEN))
    if progress and losses:
        progress.held_out(trainer.step, losses)
    if progress:
        progress.answers(trainer.step, [(a.sample, a.text, a.reference) for a in answers if isinstance(a, Answer)])
