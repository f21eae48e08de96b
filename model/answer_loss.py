"""The loss of a model on the answers of samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from core.errors import BadSampleError
from model.packed_row import PackedRow
from model.processor import Processor
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.videollama3 import VideoLLaMA3


@dataclass
class Loss:
    """A loss over samples.

    Attributes:
        total: Cross entropy in nats, summed over the tokens of the samples' answers.
        tokens: Number of these tokens.
        samples: Number of evaluated samples.
        skipped: One line per bad sample, with its name and the reason.
    """

    total: float = 0.0
    tokens: int = 0
    samples: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean loss in nats per token; NaN without tokens."""
        return self.total / self.tokens if self.tokens else math.nan

    @staticmethod
    def sum(losses: Iterable[Loss]) -> Loss:
        """Return the loss over the samples of several losses."""
        whole = Loss()
        for loss in losses:
            whole.total += loss.total
            whole.tokens += loss.tokens
            whole.samples += loss.samples
            whole.skipped += loss.skipped
        return whole


def compute_loss(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], tokens_per_row: int = 4096
) -> Loss:
    """Return the loss on the answers of samples.

    Samples are packed into rows of `tokens_per_row` tokens in their order; a longer sample gets a row of its own. Bad
    samples are skipped and listed. All ranks of a sharded model must call this with the same samples.
    """
    loss = Loss()
    with evaluating(model):
        for row in _packed_rows(processor, samples, tokens_per_row, loss):
            out = model(**row.to(device_of(model)), label_count=1.0)
            loss.total += float(out.loss)
    return loss


def _packed_rows(
    processor: Processor, samples: Iterable[Sample], tokens_per_row: int, loss: Loss
) -> Iterator[PackedRow]:
    """Yield rows of packed samples. Count samples, learned tokens and bad samples in `loss`."""
    rows: list[PackedRow] = []
    tokens = 0
    for sample in samples:
        try:
            row = processor(sample.conversation, labels=True, generation_prompt=False)
            if not row.label_count:
                raise BadSampleError("nothing is learned from it: it has no words of an assistant")
        except SAMPLE_ERRORS as error:
            loss.skipped.append(skip_line(sample, error))
            continue
        loss.samples += 1
        loss.tokens += row.label_count
        if rows and tokens + len(row.input_ids) > tokens_per_row:
            yield PackedRow.pack(rows)
            rows, tokens = [], 0
        rows.append(row)
        tokens += len(row.input_ids)
    if rows:
        yield PackedRow.pack(rows)


def skip_line(sample: Sample, error: Exception) -> str:
    """Return the line of a bad sample: its name and the reason."""
    return str(bad_sample(sample.name, error))


def device_of(model: VideoLLaMA3) -> torch.device:
    """Return the device of a model."""
    return next(model.parameters()).device


@contextmanager
def evaluating(model: VideoLLaMA3) -> Iterator[None]:
    """Disable gradients and set eval mode; afterwards restore each module's mode."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in before:
            module.training = mode
