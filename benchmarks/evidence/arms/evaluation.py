"""What a trained arm makes of clean scenes: the loss on their captions, and the ranks of the right ones.

    python -m evidence.arms.evaluation MODEL HELD_OUT RESULT.json

It is a program of its own, so that two can run side by side, each with one thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .statistics import mean_rank

if TYPE_CHECKING:
    from torch import Tensor

    from model.packed_row import PackedRow
    from model.videollama3 import VideoLLaMA3

CAPTIONS = 60
"""Captions that are ranked for each image. None is twice among them."""


def evaluate_arm(model: Path, annotations: Path) -> dict[str, float]:
    """Return the loss, the loss with other images, and the mean rank of the right caption."""
    from model.evaluate import evaluate
    from model.training.data.annotations import AnnotationConfig

    result = evaluate(model, AnnotationConfig(annotations=str(annotations)), max_new_tokens=0, shuffle_images=True)
    if result.skipped:
        sys.exit(f"{annotations}: {len(result.skipped)} clean scenes could not be evaluated; {result.skipped[0]}")
    assert result.shuffled is not None
    ranks = caption_losses(model, annotations)
    return {"loss": result.loss.mean, "shuffled": result.shuffled.mean, "rank": mean_rank(ranks), "among": len(ranks)}


def caption_losses(folder: Path, annotations: Path, captions: int = CAPTIONS) -> list[list[float]]:
    """Return the loss of each caption on each image, nats per token, (images, captions); both in the same order."""
    import torch

    from model.checkpoint import load_checkpoint

    model, processor = load_checkpoint(folder, torch.float32)
    rows = [processor(conversation, labels=True) for conversation in _distinct(annotations, captions)]
    losses = []
    with torch.inference_mode():
        for image in rows:
            visual = model.projector(model.vision(image.pixel_values, *_shape(model, image)))
            losses.append(_losses_on(model, visual, rows))
    return losses


def _distinct(annotations: Path, count: int) -> list[list[dict[str, Any]]]:
    """Return the first conversations with different captions, all with one and the same question."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for line in annotations.read_text().splitlines():
        sample = json.loads(line)
        answer = sample["conversations"][1]["value"]
        image = {"type": "image", "image": str(annotations.parent / sample["image"])}
        question = next(iter(chosen.values()))[0]["content"][1] if chosen else sample["conversations"][0]["value"]
        if answer not in chosen and len(chosen) < count:
            text = question.removeprefix("<image>\n")
            chosen[answer] = [{"role": "user", "content": [image, text]}, {"role": "assistant", "content": answer}]
    return list(chosen.values())


def _shape(model: VideoLLaMA3, row: PackedRow) -> tuple[Any, Any]:
    layout = model.layout(row)
    return layout.grids, layout.merges


def _losses_on(model: VideoLLaMA3, visual: Any, rows: Sequence[PackedRow]) -> list[float]:
    """Return the loss of each row's caption with one image's visual tokens in the place of its own."""
    import torch

    from model.packed_row import PackedRow

    row = PackedRow.pack(rows)
    losses, learned = token_losses(model, row, visual.repeat(len(rows), 1))
    owners = torch.repeat_interleave(torch.arange(len(rows)), row.segment_lengths)[learned]
    sums, counts = torch.zeros(len(rows)), torch.zeros(len(rows))
    sums.index_add_(0, owners, losses)
    counts.index_add_(0, owners, torch.ones_like(losses))
    return [float(loss) for loss in sums / counts]


def token_losses(model: VideoLLaMA3, row: PackedRow, visual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the loss of each learned token of a row with labels, in nats (L,), and the places of these tokens (L,).

    Args:
        model: The model, on the CPU.
        row: A packed row.
        visual: Visual tokens in the place of the row's own, (kept tokens, width).
    """
    import torch

    from model.attention import Segments

    layout = model.layout(row)
    hidden = model.language.model(
        inputs_embeds=model.embed(row.input_ids, row.pixel_values, layout, visual),
        position_ids=layout.positions()[None],
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
        segments=Segments.from_lengths(layout.lengths, row.input_ids.device),
        use_cache=False,
    ).last_hidden_state[0]
    learned = layout.learned_L
    assert learned is not None
    assert row.labels is not None
    logits = model.language.get_output_embeddings()(hidden[learned - 1])
    return torch.nn.functional.cross_entropy(logits, row.labels[learned], reduction="none"), learned


def main() -> None:
    model, held_out, result = map(Path, sys.argv[1:])
    scores = evaluate_arm(model, held_out / "annotations.jsonl")
    result.write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
