"""The held-out samples of a training: the losses on them, and the answers to a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from model.training.data.prepare import for_stage
from model.training.data.sampler import MixtureSampler
from model.training.data.samples import Sample
from model.training.data.source import SelectedRows, Source
from model.training.recipe import TrainRecipe

if TYPE_CHECKING:
    from model.training.metrics_log import MetricsLogger
    from model.training.trainer import Trainer

_MAX_NEW_TOKENS = 64  # maximum tokens of an answer that is generated during training


def open_held_out(recipe: TrainRecipe) -> dict[str, Source]:
    """Open the data that `held_out` of a source names, for all sources of a mixture. Return them by the source's name.

    Raises:
        UserError: They are missing, or none of their samples can be read.
    """
    opened = {}
    for name in recipe.used_sources:
        source = recipe.sources[name]
        if isinstance(source.held_out, str):
            opened[name] = source.at(source.held_out).open(name)
            opened[name].check()
    return opened


def is_evaluation_due(trainer: Trainer) -> bool:
    """Return whether the last step is followed by an evaluation. A stage ends with one in any case."""
    return trainer.step > 0 and trainer.step % trainer.recipe.evaluate_every == 0 and trainer.progress() < 1


def is_evaluation_lost(trainer: Trainer, metrics: MetricsLogger | None) -> bool:
    """Return whether a stage goes on from a step whose evaluation came to no end. All ranks get rank 0's answer."""
    is_logged = metrics is not None and metrics.has_evaluation(trainer.step)
    return bool(trainer.world.all_gather(is_evaluation_due(trainer) and not is_logged)[0])


def evaluate_held_out(trainer: Trainer, opened: Mapping[str, Source], metrics: MetricsLogger | None) -> None:
    """Compute held-out losses and generate a few answers. All ranks run this; rank 0 logs the results.

    Args:
        trainer: The trainer of the stage.
        opened: What `open_held_out` has returned.
        metrics: The log, on rank 0.
    """
    from model.answer_loss import compute_loss
    from model.evaluate import Answer, generate_answers

    model, processor = trainer.model, for_stage(trainer.processor, trainer.stage)
    selected = _selected(trainer.sampler, opened)
    held_out = {name: list(rows) for name, rows in selected.items()}
    with trainer.autocast():
        losses = {name: compute_loss(model, processor, samples) for name, samples in held_out.items()}
    questions = _questions(trainer.sampler, held_out, trainer.recipe.num_eval_generations)
    with trainer.autocast():
        answers = list(generate_answers(model, processor, questions, _MAX_NEW_TOKENS))
    if metrics and losses:
        skipped = [line for name in held_out for line in (*selected[name].skipped, *losses[name].skipped)]
        metrics.skipped_held_out(skipped)
        metrics.held_out(trainer.step, {name: loss.mean for name, loss in losses.items()})
    if metrics:
        good = [answer for answer in answers if isinstance(answer, Answer)]
        metrics.answers(trainer.step, [(a.sample, a.text, a.reference, a.cut) for a in good])


def _selected(sampler: MixtureSampler, opened: Mapping[str, Source]) -> dict[str, SelectedRows]:
    """Return the held-out samples of each source that has any, by its name."""
    selected = {}
    for source, order in zip(sampler.sources, sampler.source_orders, strict=True):
        if source.name in opened:
            selected[source.name] = SelectedRows(opened[source.name], range(opened[source.name].rows))
        elif len(order.held_out):
            selected[source.name] = SelectedRows(source, order.held_out.tolist())
    return selected


def _questions(sampler: MixtureSampler, held_out: Mapping[str, Sequence[Sample]], count: int) -> list[Sample]:
    """Return the samples to answer: held-out ones of each source in turn, or else the first training samples."""
    if held_out:
        return [sample for samples in zip(*held_out.values(), strict=False) for sample in samples][:count]
    rows = [sampler(index) for index in range(count)]
    return [sample for number, row in rows for sample in SelectedRows(sampler.sources[number], [row])]
