"""Train the small model on batches of samples, packed into a row or padded to the longest.

    python -m evidence.ablation.batches WAY RECIPE.yaml OUT SAMPLES

The trainer always packs. So here is a loop of its own, with the recipe's optimiser, schedule and clipping, in which
only the batch and the class of the model differ:

* `ours`: VideoLLaMA3 of this project, the samples in one packed row;
* `packed`: transformers' `VideoLlama3ForConditionalGeneration`, the samples in one row, told apart by positions;
* `padded`: the same class, a row for each sample, padded to the longest.

All begin with the same weights and see the same samples in each step. Core-seconds are CPU time of all threads, of the
steps without decoding and tokenising, which are done before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from model.training.data.prepare import Prepared
    from model.training.stage import Stage
    from model.training.stage_plan import StagePlan

Batch = Sequence["Prepared"]


def train(way: str, recipe: Path, out: Path, size: int) -> dict[str, float]:
    """Train OUT/model on batches of `size` samples. Return what it took.

    Returns:
        `tokens`: of all samples seen. `core seconds`. `padding`: share of the places of all batches that is padding, 0
        to 1. `first loss`: of the first step, in nats per token.
    """
    from model.training.recipe import load_recipe
    from model.training.stage_plan import plan_stages

    (plan,) = plan_stages(load_recipe(recipe))
    samples, random = _prepared(plan), Random(plan.recipe.seed)
    steps = plan.stage.steps
    assert steps is not None
    batches = [random.sample(samples, size) for _ in range(steps)]
    model = _new_model(way, plan, out)
    begun = time.process_time()
    losses = _run(model, INPUTS[way], batches, plan.stage)
    core_seconds = time.process_time() - begun
    model.save_pretrained(out / "model")
    plan.processor.save_pretrained(out / "model")
    tokens = sum(sample.tokens for batch in batches for sample in batch)
    places = sum(len(batch) * max(sample.tokens for sample in batch) for batch in batches)
    padding = 1 - tokens / places if way == "padded" else 0.0
    return {"tokens": tokens, "core seconds": core_seconds, "padding": padding, "first loss": losses[0]}


def _prepared(plan: StagePlan) -> list[Prepared]:
    """Return all samples of the first source, decoded and tokenised."""
    from model.training.data.prepare import prepare

    source, processor, stage = plan.sampler.sources[0], plan.processor, plan.stage
    return [prepare(processor, source.sample(n), n, stage.tokens, stage.patch_budget)[0] for n in range(source.rows)]


def _new_model(way: str, plan: StagePlan, out: Path) -> Any:
    import torch

    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(plan.recipe.seed)
    ours = VideoLLaMA3(plan.config).train()
    if way == "ours":
        return ours
    from transformers import VideoLlama3ForConditionalGeneration

    ours.save_pretrained(out / "start")
    return VideoLlama3ForConditionalGeneration.from_pretrained(out / "start", dtype=torch.float32).train()


def _run(
    model: Any, inputs: Callable[[Batch], Mapping[str, Any]], batches: Sequence[Batch], stage: Stage
) -> list[float]:
    """Train one step on each batch. Return the losses."""
    import torch

    from model.training.schedule import factor

    (rate,) = set(stage.learning_rates.values())
    optimizer = torch.optim.AdamW(model.parameters(), lr=float(rate), betas=stage.betas, weight_decay=0.0)
    losses = []
    for number, batch in enumerate(batches):
        loss = model(**inputs(batch)).loss
        loss.backward()
        if stage.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), stage.clip)
        for group in optimizer.param_groups:
            group["lr"] = float(rate) * factor((number + 0.5) / len(batches), stage.warmup, stage.schedule)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses


def our_row(batch: Batch) -> Mapping[str, Any]:
    """Return the input of our model."""
    from model.packed_row import PackedRow

    return PackedRow.pack([sample.inputs for sample in batch])


def packed_row(batch: Batch) -> Mapping[str, Any]:
    """Return the input of transformers' model, all samples in one row."""
    import torch

    row = our_row(batch)
    assert row["labels"] is not None
    lengths = [sample.tokens for sample in batch]
    return {
        "input_ids": row["input_ids"][None],
        "labels": _unlearned_firsts(row["labels"], lengths)[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "attention_mask": None,
        "use_cache": False,
        **_images(batch),
    }


def padded_rows(batch: Batch) -> Mapping[str, Any]:
    """Return the input of transformers' model, a row for each sample, padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [sample.inputs.input_ids for sample in batch]
    labels = [sample.inputs["labels"] for sample in batch]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "attention_mask": pad_sequence([torch.ones_like(one) for one in ids], batch_first=True),
        "use_cache": False,
        **_images(batch),
    }


INPUTS: Mapping[str, Callable[[Batch], Mapping[str, Any]]] = {
    "ours": our_row,
    "packed": packed_row,
    "padded": padded_rows,
}


def _unlearned_firsts(labels: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return labels without each sample's first one: nothing of its own sample predicts it."""
    import torch

    labels = labels.clone()
    labels[torch.tensor([0, *lengths[:-1]]).cumsum(0)] = -100
    return labels


def _images(batch: Batch) -> dict[str, Any]:
    import torch

    from model.images import normalise

    names = {"pixel_values": "pixel_values", "grid_thw": "image_grid_thw", "merge_sizes": "image_merge_sizes"}
    return {theirs: normalise(torch.cat([one.inputs[ours] for one in batch])) for ours, theirs in names.items()}


def main() -> None:
    way, recipe, out, size = sys.argv[1:]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cost.json").write_text(json.dumps(train(way, Path(recipe), folder, int(size))))


if __name__ == "__main__":
    main()
