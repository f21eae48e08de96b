"""What a trained model makes of held-out samples: losses, and how many visual tokens it reads.

    python -m evidence.ablation.scores MODEL ANNOTATIONS RESULT.json [WORD]

It is a program of its own, so that two can run side by side, each with one thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evidence.arms.evaluation import token_losses

if TYPE_CHECKING:
    from model.processor import Processor
    from model.training.data.samples import Sample
    from model.videollama3 import VideoLLaMA3


@dataclass(frozen=True)
class Scored:
    """What is known of one sample.

    Attributes:
        losses: Of each token of the answer, in nats.
        words: These tokens as text.
        visual: Visual tokens that the language model reads.
        merged: Visual tokens before pruning.
        shape: What its annotation says of its shape; an empty text if nothing.
    """

    losses: Sequence[float]
    words: Sequence[str]
    visual: int
    merged: int
    shape: str


def score(folder: Path, annotations: Path, word: str | None = None) -> dict[str, Any]:
    """Return the scores of a model on all samples of an annotation file.

    Returns:
        `loss` and `shuffled`: nats per token, with the samples' own media and with those of others. `visual`: visual
        tokens of a sample. `kept`: share of them that pruning keeps, 0 to 1. `behind`: nats of a sample on all that
        its answer says behind `word`. `loss of SHAPE` for each shape of the annotations.

    Raises:
        SystemExit: A sample could not be read, or its answer does not have the word as a token.
    """
    import torch

    from model.checkpoint import load_checkpoint
    from model.other_images import OtherImages
    from model.training.data.annotations import AnnotationConfig
    from model.training.data.source import SelectedRows

    model, processor = load_checkpoint(folder, torch.float32)
    model.eval()
    source = AnnotationConfig(annotations=str(annotations)).open("held out")
    samples = SelectedRows(source, range(source.rows))
    own = [_scored(model, processor, sample) for sample in samples]
    if samples.skipped:
        sys.exit(f"{annotations}: {len(samples.skipped)} samples could not be evaluated; {samples.skipped[0]}")
    others = [_scored(model, processor, sample) for sample in OtherImages(samples)]
    return {**summary(own, word), "shuffled": _mean(loss for one in others for loss in one.losses)}


def summary(samples: Sequence[Scored], word: str | None = None) -> dict[str, Any]:
    """Return the means over samples, see `score`."""
    scores = {
        "loss": _mean(loss for one in samples for loss in one.losses),
        "visual": _mean(one.visual for one in samples),
        "kept": sum(one.visual for one in samples) / sum(one.merged for one in samples),
    }
    if word is not None:
        scores["behind"] = _mean(_behind(one, word) for one in samples)
    for shape in sorted({one.shape for one in samples} - {""}):
        scores[f"loss of {shape}"] = _mean(loss for one in samples if one.shape == shape for loss in one.losses)
    return scores


def _behind(one: Scored, word: str) -> float:
    """Return the sum of the losses of all tokens behind a word."""
    if word not in one.words:
        sys.exit(f"no token of an answer is {word!r}: {' '.join(one.words)}")
    return sum(one.losses[one.words.index(word) + 1 :])


def _mean(values: Iterable[float]) -> float:
    each = list(values)
    return sum(each) / len(each)


def _scored(model: VideoLLaMA3, processor: Processor, sample: Sample) -> Scored:
    import torch

    row = processor(sample.conversation, labels=True, generation_prompt=False)
    assert row.labels is not None
    with torch.inference_mode():
        losses, learned = token_losses(model, row)
    return Scored(
        losses=losses.tolist(),
        words=[processor.tokenizer.decode([token]).strip() for token in row.labels[learned].tolist()],
        visual=int(row.keep_mask.sum()),
        merged=len(row.keep_mask),
        shape=str(sample.labels.get("shape", "")),
    )


def main() -> None:
    model, annotations, result = map(Path, sys.argv[1:4])
    result.write_text(json.dumps(score(model, annotations, *sys.argv[4:5])))


if __name__ == "__main__":
    main()
