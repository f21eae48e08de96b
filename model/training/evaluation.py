"""How good a model is on samples that it was not trained on: its loss, and its own answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.processor import Processor, pack
from model.training.samples import Sample
from model.videollama3 import IGNORE, VideoLLaMA3


@dataclass
class Loss:
    """A loss over samples.

    Attributes:
        total: Summed over learned tokens, nats.
        tokens: Learned tokens.
        samples: Samples.
        skipped: Why samples were not looked at, each with its name.
    """

    total: float = 0.0
    tokens: int = 0
    samples: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Nats per token; NaN without any."""
        return self.total / self.tokens if self.tokens else float("nan")


@dataclass(frozen=True)
class Answer:
    """What a model said where a sample ends with an assistant's message.

    Attributes:
        sample: Its name.
        text: The model's.
        reference: The sample's.
    """

    sample: str
    text: str
    reference: str


def held_out_loss(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], tokens_per_row: int = 4096
) -> Loss:
    """The loss per learned token, samples packed into rows of about so many tokens.

    A bad sample is left out, counted and named. All workers of a sharded model call it with the same samples.
    """
    found = Loss()
    with _evaluating(model):
        for row in _rows(processor, samples, tokens_per_row, found):
            count = int((row["labels"] != IGNORE).sum())
            out = model(**_moved(row, model), label_count=1.0)
            found.total += float(out.loss)
            found.tokens += count
    return found


def generate_answers(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], max_new_tokens: int = 128, batch: int = 1
) -> Iterator[Answer | str]:
    """Let the model answer the last question of each conversation, greedily.

    Args:
        batch: Samples that are answered together.

    Yields:
        In the samples' order, an answer, or why there is none for a bad sample.
    """
    waiting: list[tuple[Sample, str, Mapping[str, Tensor]]] = []
    for sample in samples:
        try:
            *before, last = sample.conversation
            if last["role"] != "assistant" or not before:
                raise ValueError("does not end with an answer")
            waiting.append((sample, _text(last), processor(before, generation_prompt=True)))
        except ValueError as error:
            yield f"{sample.name}: {error}"
        if len(waiting) == batch:
            yield from _answered(model, processor, waiting, max_new_tokens)
            waiting = []
    if waiting:
        yield from _answered(model, processor, waiting, max_new_tokens)


def _answered(
    model: VideoLLaMA3, processor: Processor, waiting: Sequence[tuple[Sample, str, Mapping[str, Tensor]]], most: int
) -> Iterator[Answer]:
    row = pack([tensors for _, _, tensors in waiting])
    with _evaluating(model):
        made = model.generate(**_moved(row, model), max_new_tokens=most)
    for (sample, reference, _), ids in zip(waiting, made, strict=True):
        yield Answer(sample.name, processor.decode(ids).strip(), reference)


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def _rows(
    processor: Processor, samples: Iterable[Sample], tokens_per_row: int, found: Loss
) -> Iterator[Mapping[str, Tensor]]:
    waiting: list[Any] = []
    for sample in samples:
        try:
            ready = processor(sample.conversation, labels=True, generation_prompt=False)
        except ValueError as error:
            found.skipped.append(f"{sample.name}: {error}")
            continue
        found.samples += 1
        if waiting and sum(len(row["input_ids"]) for row in [*waiting, ready]) > tokens_per_row:
            yield pack(waiting)
            waiting = []
        waiting.append(ready)
    if waiting:
        yield pack(waiting)


def _moved(row: Mapping[str, Tensor], model: VideoLLaMA3) -> dict[str, Any]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in row.items()}


@contextmanager
def _evaluating(model: VideoLLaMA3) -> Iterator[None]:
    """Without gradients, and in the mode that was found."""
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(before)
