"""Show what a stage teaches: images and frames as the model sees them, and the prompt with its learned tokens.

H, W pixels of an image or a frame
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import BadSampleError
from model.images import unpatchify
from model.media import Medium
from model.training.data.measurement import Encoded, ObservedProcessor, encode
from model.training.data.prepare import Prepared
from model.training.source_sample import read
from model.training.stage_plan import StagePlan

Kind = Literal["text", "learned", "vision"]

_FRAMES = 12  # frames of a film that are shown
_GREY, _FADED = 128, 0.85  # of tokens that are pruned


@dataclass(frozen=True)
class Segment:
    """Tokens of one kind that stand together in the prompt.

    Attributes:
        kind: `learned`: the loss counts them. `vision`: placeholders of visual tokens. `text`: all others.
        text: The text that they stand for; of placeholders empty.
        tokens: Their number.
    """

    kind: Kind
    text: str
    tokens: int


@dataclass(frozen=True, eq=False)
class ShownFrame:
    """An image, or a frame of a film.

    Attributes:
        pixels_HW3: uint8, after resizing. Tokens that are pruned are faded.
        time: Time in the film, in seconds; None for an image.
        tokens: Number of its visual tokens that are kept.
    """

    pixels_HW3: NDArray[np.uint8]
    time: float | None
    tokens: int


@dataclass(frozen=True, eq=False)
class ShownMedium:
    """An image, or some frames of a film, evenly spaced.

    Attributes:
        frames: The frames; one for an image.
        count: Number of all frames.
        tokens: Number of visual tokens that are kept, of all frames.
        before: Their number before pruning.
    """

    frames: Sequence[ShownFrame]
    count: int
    tokens: int
    before: int


@dataclass(frozen=True, eq=False)
class ShownPiece:
    """A sample, or a piece of a split one, as the model reads it.

    Attributes:
        media: Its images and films, in order.
        segments: Its prompt.
    """

    media: Sequence[ShownMedium]
    segments: Sequence[Segment]

    def tokens(self, kind: Kind) -> int:
        """Return the number of tokens of one kind."""
        return sum(segment.tokens for segment in self.segments if segment.kind == kind)


@dataclass(frozen=True, eq=False)
class ShownSample:
    """A sample.

    Attributes:
        name: Its name; empty if it is skipped.
        pieces: Its pieces; one if it is not split, none if it is skipped.
        error: Why training skips it, with its name; empty if it does not.
    """

    name: str
    pieces: Sequence[ShownPiece] = ()
    error: str = ""


def preview(plan: StagePlan, source: int, rows: Sequence[int]) -> Iterator[ShownSample]:
    """Yield some samples of a stage, one after another, since their pixels may take gigabytes together.

    Args:
        plan: The stage.
        source: Number of the source in the stage's mixture.
        rows: Rows of the source.
    """
    processor = ObservedProcessor(plan.processor)
    for row in rows:
        yield _sample(plan, processor, source, row)


def _sample(plan: StagePlan, processor: ObservedProcessor, source: int, row: int) -> ShownSample:
    try:
        pieces = encode(processor, read(plan, source, row), plan.stage)
    except BadSampleError as error:
        return ShownSample("", error=" ".join(str(error).split()))
    return ShownSample(pieces[0][0].name, [_piece(processor, *piece) for piece in pieces])


def _piece(processor: ObservedProcessor, piece: Prepared, encoded: Encoded) -> ShownPiece:
    return ShownPiece([_medium(medium) for medium in encoded.media], segments(processor, piece))


def segments(processor: ObservedProcessor, piece: Prepared) -> list[Segment]:
    """Return the prompt of a piece, cut where the kind of its tokens changes."""
    tokenizer, config = processor.tokenizer, processor.config
    placeholders = {tokenizer.convert_tokens_to_ids(token) for token in (config.image_token, config.video_token)}
    ids, labels = piece.inputs.input_ids.tolist(), piece.inputs.labels
    assert labels is not None

    def kind(number: int) -> Kind:
        if ids[number] in placeholders:
            return "vision"
        return "learned" if number and labels[number] == ids[number] else "text"

    runs = [(each, [ids[number] for number in run]) for each, run in groupby(range(len(ids)), kind)]
    texts = ["" if each == "vision" else tokenizer.decode(run, skip_special_tokens=False) for each, run in runs]
    return [Segment(each, text, len(run)) for (each, run), text in zip(runs, texts, strict=True)]


def _medium(medium: Medium) -> ShownMedium:
    count, h, w = medium.grid
    kept = medium.keep_mask.view(count, h // medium.merge, w // medium.merge)
    chosen = np.unique(np.linspace(0, count - 1, min(_FRAMES, count)).round().astype(int)).tolist()
    patches = medium.patches.view(count, h * w, -1)[chosen].reshape(len(chosen) * h * w, -1)
    pixels = unpatchify(patches, (len(chosen), h, w), medium.merge).numpy()
    frames = [
        ShownFrame(
            _faded(frame, kept[number].numpy()),
            medium.times[number] if medium.times else None,
            int(kept[number].sum()),
        )
        for number, frame in zip(chosen, pixels, strict=True)
    ]
    return ShownMedium(frames, count, int(kept.sum()), kept.numel())


def _faded(frame_HW3: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a frame whose pruned tokens are nearly grey. `kept` has a value for each token."""
    rows, columns = frame_HW3.shape[0] // kept.shape[0], frame_HW3.shape[1] // kept.shape[1]
    mask = np.repeat(np.repeat(kept, rows, 0), columns, 1)[..., None]
    faded = frame_HW3 * (1 - _FADED) + _GREY * _FADED
    return np.where(mask, frame_HW3, faded).astype(np.uint8)
