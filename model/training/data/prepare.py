"""Tokenise samples for packing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BadSampleError
from model.packed_row import PackedRow
from model.processor import Processor
from model.training.data.conversations import split
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.training.stage import Stage


@dataclass(frozen=True, eq=False)
class Prepared:
    """A tokenised sample, or a piece of one, ready to be packed.

    Attributes:
        name: Name for messages.
        index: Position in the sampler's order, from 0.
        piece: Number of the piece of a split conversation, from 0.
        inputs: Output of the processor, with labels and uint8 patches.
        labelled: Number of tokens that are learned.
    """

    name: str
    index: int
    piece: int
    inputs: PackedRow
    labelled: int

    @property
    def tokens(self) -> int:
        """Number of tokens, placeholders included."""
        return len(self.inputs.input_ids)

    @property
    def patches(self) -> int:
        """Number of patches, before merging and pruning."""
        return len(self.inputs.pixel_values)

    @property
    def info(self) -> SampleInfo:
        """All but the tensors."""
        return SampleInfo(self.name, self.index, self.piece, self.tokens, self.patches, self.labelled)


@dataclass(frozen=True)
class SampleInfo:
    """A `Prepared` without its tensors, which are part of a packed row. The attributes are those of `Prepared`."""

    name: str
    index: int
    piece: int
    tokens: int
    patches: int
    labelled: int


@dataclass(frozen=True, eq=False)
class Preparer:
    """Prepares samples for one stage; it can be copied to other threads and processes.

    Attributes:
        processor: Made by `for_stage`.
        tokens: Token budget of a row.
        patches: Patch budget of a row.
    """

    processor: Processor
    tokens: int
    patches: int

    def __call__(self, sample: Sample, index: int) -> list[Prepared]:
        """Prepare the sample at an index of the sampler's order, see `prepare`."""
        return prepare(self.processor, sample, index, self.tokens, self.patches)


def for_stage(processor: Processor, stage: Stage) -> Processor:
    """Return a processor with a stage's merge sizes, pruning, visual token budget and frame sampling."""
    config = processor.config.model_copy(
        update={
            "image": processor.config.image.model_copy(update={"merge": stage.image_merge}),
            "video": processor.config.video.model_copy(update={"merge": stage.video_merge}),
            "max_tokens": stage.visual_tokens,
            "pruning": stage.pruning,
            "fps": stage.fps,
            "max_frames": stage.max_frames,
        }
    )
    return Processor(processor.tokenizer, config, processor.chat_template)


def prepare(processor: Processor, sample: Sample, index: int, tokens: int, patches: int) -> list[Prepared]:
    """Tokenise a sample. One that is longer than a row is split between turns.

    Args:
        processor: Made by `for_stage`.
        sample: The conversation.
        index: Position in the sampler's order.
        tokens: Token budget of a row.
        patches: Patch budget of a row.

    Raises:
        BadSampleError: The sample is bad, has nothing to learn, or a single turn is too long.
    """

    def encoded(piece: Sample, number: int) -> Prepared:
        inputs = processor(piece.conversation, labels=True, generation_prompt=False, raw_pixels=True)
        return Prepared(piece.name, index, number, inputs, inputs.label_count)

    def fits(ready: Prepared) -> bool:
        return ready.tokens <= tokens and ready.patches <= patches

    if not any(_spoken(message) for message in sample.conversation):
        raise BadSampleError(f"{sample.name}: nothing to learn: it has no words of an assistant")
    try:
        whole = encoded(sample, 0)
        pieces = [whole]
        if not fits(whole):
            parts = split(sample, lambda piece: fits(encoded(piece, 0)))
            pieces = [encoded(part, number) for number, part in enumerate(parts)]
    except SAMPLE_ERRORS as error:
        raise bad_sample(sample.name, error) from error
    return pieces


def _spoken(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and bool(str(message["content"]).strip())
