"""Measure samples as a training stage prepares them: tokens, images, frames, and what training skips.

A sample goes through the same `prepare` as in training. Only sizes are kept, no pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.errors import BadSampleError
from model.media import MediaLoader, Medium
from model.packed_row import PackedRow
from model.processor import M, Processor
from model.prompt import Message, Tokens
from model.sizes import Size
from model.training.data.prepare import Prepared, prepare
from model.training.data.samples import Sample
from model.training.flops import RowSizes
from model.training.stage import Stage

QUANTITIES = (
    "samples",  # of the source; a skipped one counts
    "skipped",
    "split",  # samples that are longer than a row, and come in pieces
    "pieces",  # of samples that are not skipped, the unsplit ones included
    "learned",  # tokens
    "text",  # tokens of text that are not learned
    "vision",  # tokens
    "images",
    "frames",
    "seconds",  # of film
    "patches",
    "vision_squares",  # as in `RowSizes`
    "language_squares",
)
"""What is counted of a sample, in the order of `Sizes`."""

Sizes = NDArray[np.float64]
"""The values of `QUANTITIES`."""


@dataclass(frozen=True, eq=False)
class MeasuredPiece:
    """The sizes of a sample, or of one piece of it.

    Attributes:
        tokens: Number of tokens, placeholders included.
        patches: Number of patches.
        sizes: All quantities of the piece; `samples` and `split` count at the first piece.
    """

    tokens: int
    patches: int
    sizes: Sizes


@dataclass(frozen=True, eq=False)
class Measured:
    """A measured sample.

    Attributes:
        pieces: The sample, or its pieces if it is split; none if it is skipped.
        error: Why training skips it, with its name; empty if it does not. A text: an exception keeps pixels in memory.
        sizes: Sum over the pieces; of a skipped sample only `samples` and `skipped` are not 0.
    """

    pieces: tuple[MeasuredPiece, ...] = ()
    error: str = ""
    sizes: Sizes = field(default_factory=lambda: sizes_of(samples=1, skipped=1))


def sizes_of(**values: float) -> Sizes:
    """Return quantities by name; the others are 0."""
    return np.array([values.get(name, 0) for name in QUANTITIES], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the processor made of a conversation.

    Attributes:
        row: The tensors.
        media: The media that have placeholders, in order.
        seconds: Length of film that the frames stand for.
    """

    row: PackedRow
    media: Sequence[Medium]
    seconds: float


class ObservedProcessor(Processor):
    """A processor that keeps what it has read: the times of frames are not in its tensors.

    Attributes:
        encoded: The results of all calls, in order, until somebody clears the list.
    """

    def __init__(self, processor: Processor) -> None:
        """Take the settings of another processor."""
        super().__init__(processor.tokenizer, processor.config, processor.chat_template)
        self.encoded: list[Encoded] = []
        self._last: tuple[Sequence[Medium], float] = ((), 0.0)

    def __call__(
        self,
        conversation: Sequence[Message],
        *,
        labels: bool = False,
        generation_prompt: bool | None = None,
        raw_pixels: bool = False,
    ) -> PackedRow:
        """Prepare one conversation, as `Processor` does."""
        row = super().__call__(conversation, labels=labels, generation_prompt=generation_prompt, raw_pixels=raw_pixels)
        self.encoded.append(Encoded(row, *self._last))
        return row

    def prepare(
        self,
        conversation: Sequence[Message],
        read: Callable[[MediaLoader, Size], Sequence[M]],
        generation_prompt: bool | None = None,
    ) -> tuple[Tokens, list[M]]:
        """Return tokens and media, as `Processor` does."""
        lengths: list[float] = []

        def observed(loader: MediaLoader, size: Size) -> Sequence[M]:
            if loader.is_video:
                lengths.append(film_seconds(loader.times, loader.config.fps))
            return read(loader, size)

        tokens, media = super().prepare(conversation, observed, generation_prompt)
        self._last = (media, sum(lengths))
        return tokens, media


def film_seconds(times: Sequence[float], fps: float) -> float:
    """Return the length of film that frames at these times stand for, each up to the next one.

    The last one counts as much as the others do on average; a single one counts 1 / fps.
    """
    count = len(times)
    return (times[-1] - times[0]) * count / (count - 1) if count > 1 else count / fps


def measure(processor: ObservedProcessor, sample: Sample | BadSampleError, stage: Stage) -> Measured:
    """Measure a sample as the stage prepares it.

    Args:
        processor: Made of the one that `for_stage` returns.
        sample: What the source returned or raised.
        stage: The stage.
    """
    try:
        return measured(encode(processor, sample, stage))
    except BadSampleError as error:
        return Measured(error=str(error) or "no reason was given")


def encode(
    processor: ObservedProcessor, sample: Sample | BadSampleError, stage: Stage
) -> list[tuple[Prepared, Encoded]]:
    """Prepare a sample as the stage does, and return its pieces with what the processor has read.

    Raises:
        BadSampleError: Training skips it.
    """
    if isinstance(sample, BadSampleError):
        raise sample
    processor.encoded.clear()
    try:
        pieces = prepare(processor, sample, 0, stage.tokens, stage.patch_budget)
        by_row = {id(encoded.row): encoded for encoded in processor.encoded}
        return [(piece, by_row[id(piece.inputs)]) for piece in pieces]
    finally:
        processor.encoded.clear()


def measured(pieces: Sequence[tuple[Prepared, Encoded]]) -> Measured:
    """Return the sizes of the pieces of one sample."""
    all_sizes = []
    for number, (piece, encoded) in enumerate(pieces):
        sizes, films = RowSizes.of(piece.inputs), [medium for medium in encoded.media if medium.times]
        first = number == 0
        values = sizes_of(
            samples=first,
            split=first and len(pieces) > 1,
            pieces=1,
            learned=piece.labelled,
            text=piece.tokens - piece.labelled - sizes.vision,
            vision=sizes.vision,
            images=len(encoded.media) - len(films),
            frames=sum(len(medium.times) for medium in films),
            seconds=encoded.seconds,
            patches=piece.patches,
            vision_squares=sizes.vision_squares,
            language_squares=sizes.language_squares,
        )
        all_sizes.append(MeasuredPiece(piece.tokens, piece.patches, values))
    return Measured(tuple(all_sizes), sizes=np.sum([piece.sizes for piece in all_sizes], axis=0))
