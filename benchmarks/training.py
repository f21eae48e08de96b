"""Training throughput against what one would write with transformers' `VideoLlama3ForConditionalGeneration`.

Useful tokens per core-second: those that are learned and those of images, whatever else is computed. A step is forward,
backward and AdamW, float32, on the same samples, images and weights:

* packed: our model and packer, rows of 2,048 tokens, the head on learned tokens only;
* padded: theirs, 8 samples at random, padded to the longest, with an attention mask, what is not learned marked -100;
* grouped: the same, but 8 of about one length: transformers' `group_by_length`, which sorts 400 at a time.

Samples are the mixture of mixture.py without clips, texts and images (by area) a quarter of its size. Few must stand
for many: they are those of every so-manyeth batch that grouping makes of 2,000, so that grouped batches are at least
as even as in earnest (column `fill`: 0.96 of all 2,000), while random ones lack the longest samples. That all three
compute the same is checked: the loss before the first step must be equal to 1e-4. Models:

* the preset `tiny`, and one of 30 M parameters with a vocabulary of 4,096. Targets: ≥ 1.4 of padded, ≥ 1.0 of grouped;
* one of 20 M with Qwen2.5's vocabulary, 151,936, samples of at most 512 tokens. Target: ≥ 2.0 of padded. Its head is
  nearly all of it: for the preset `2b` it is a seventh of the language model.

Each variant runs in a process of its own, in turns, on one core: so other work on the machine weighs little.
A core-second is one of CPU time; ratios by the clock are told too.

    .venv/bin/python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import packed
from common import machine, reached
from mixture import SHARES, Drawn, draw
from turns import in_turns, markdown, serve

WAYS = ("packed", "padded", "grouped")
KINDS = [kind for kind in SHARES if kind != "clip"]
SCALE, POOL, BATCH, ROW = 0.25, 2000, 8, 2048
MEGA = 50  # batches that are sorted together, as in transformers


@dataclass(frozen=True)
class Case:
    """Batches of 8 that stand for all, tokens of the longest sample, and targets over padded and grouped ones."""

    batches: int
    longest: int
    over_padded: float
    over_grouped: float | None


CASES = {
    "tiny": Case(16, 1024, 1.4, 1.0),
    "30m": Case(4, 1024, 1.4, 1.0),
    "vocabulary": Case(2, 512, 2.0, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--sizes", nargs="*", choices=CASES, default=list(CASES), help="models; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", help="serve this variant and size")
    args = parser.parse_args()
    if args.only:
        import torch

        torch.set_num_threads(args.threads)
        serve(work(*args.only.split()))
        return
    results: dict[str, Any] = {"machine": machine(("torch", "transformers"))}
    for size in args.sizes:
        results[size] = measure(size, args.repeat, args.threads)
    if args.json:
        print(json.dumps(results, indent=2))
        return
    columns = ("model", "batches", "steps", "fill", "useful tokens a core-second", "ours by theirs", "by the clock")
    rows = [row(size, way, results[size]) for size in args.sizes for way in WAYS]
    print(f"{results['machine']}\n\n{markdown((*columns, 'target', 'peak, MiB'), rows)}")


def measure(size: str, rounds: int, threads: int) -> dict[str, Any]:
    works, arguments = [f"{way} {size}" for way in WAYS], ["--threads", str(threads)]
    first, *timed = in_turns(__file__, works, rounds + 1, arguments)
    losses = [one["result"]["loss"] for one in first]
    if not all(math.isclose(loss, losses[0], rel_tol=1e-4) for loss in losses):
        raise SystemExit(f"{size}: losses {losses}")
    return {way: [one[number] for one in timed] for number, way in enumerate(WAYS)}


def row(size: str, way: str, results: dict[str, list[dict[str, Any]]]) -> tuple[str, ...]:
    case, ours, theirs = CASES[size], results["packed"], results[way]
    rates = [one["result"]["useful"] / one["core_seconds"] for one in theirs]
    by_core, by_clock = (
        [other[key] / one[key] for one, other in zip(ours, theirs, strict=True)] for key in ("core_seconds", "seconds")
    )
    target = {"padded": case.over_padded, "grouped": case.over_grouped}.get(way)
    return (
        size,
        way,
        str(theirs[0]["result"]["steps"]),
        f"{statistics.median(one['result']['fill'] for one in theirs):.2f}",
        f"{statistics.median(rates):,.0f}",
        "" if way == "packed" else f"{statistics.median(by_core):.2f} ({min(by_core):.2f} to {max(by_core):.2f})",
        "" if way == "packed" else f"{statistics.median(by_clock):.2f}",
        "" if target is None else reached(statistics.median(by_core), target),
        f"{max(one['mib'] for one in theirs):,.0f}",
    )


def config(size: str) -> Any:
    from model.config import ModelConfig, VisionConfig

    if size != "vocabulary":
        return packed.config(size)
    tiny = packed.config("tiny")
    shape = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "vocab_size": 151936}
    return ModelConfig(
        vision=VisionConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4),
        language={**tiny.language, **shape},
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
    )


def work(way: str, size: str) -> Callable[[], dict[str, float]]:
    """One variant: the first call gives the loss and warms up, each other goes once through the samples."""
    import torch

    shape, samples, rounds = config(size), prepared(size), itertools.count()
    model = packed.build("ours" if way == "packed" else "theirs", shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = {"packed": by_rows, "padded": at_random, "grouped": as_they_are}[way]

    def step(tensors: dict[str, Any]) -> None:
        optimizer.zero_grad()
        model(**tensors).loss.backward()
        optimizer.step()

    def run() -> dict[str, float]:
        number = next(rounds)
        groups = list(batches(samples, number))
        tensors = (row_of(batch) if way == "packed" else padded(batch) for batch in groups)
        if number:
            for inputs in tensors:
                step(inputs)
            return summary(way, groups)
        loss = mean_loss(model, tensors, groups)
        step(row_of(groups[0]) if way == "packed" else padded(groups[0]))
        return {"loss": loss}

    return run


def summary(way: str, batches: Sequence[Sequence[Any]]) -> dict[str, float]:
    """Of one pass: useful tokens, steps, and the share of what is computed (packed: may be computed) that is real."""
    samples = [sample for batch in batches for sample in batch]
    places = sum(ROW if way == "packed" else len(batch) * max(s.tokens for s in batch) for batch in batches)
    return {
        "useful": sum(sample.labelled + sample.patches for sample in samples),
        "steps": len(batches),
        "fill": sum(sample.tokens for sample in samples) / places,
    }


def mean_loss(model: Any, tensors: Iterator[dict[str, Any]], batches: Sequence[Sequence[Any]]) -> float:
    """Per learned token, before anything is learned."""
    import torch

    with torch.no_grad():
        counts = [sum(sample.labelled for sample in batch) for batch in batches]
        losses = [float(model(**inputs).loss) for inputs in tensors]
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


def prepared(size: str) -> list[Any]:
    """The samples, as batches of 8 of about one length, behind one another."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    from model.processor import Processor
    from model.training.data.prepare import prepare

    case, dice = CASES[size], random.Random(0)
    drawn = draw(POOL, 0, KINDS, SCALE, case.longest)
    seed = torch.Generator().manual_seed(0)
    order = get_length_grouped_indices([length(one) for one in drawn], BATCH, MEGA, seed)
    sorted_together = MEGA * BATCH
    chosen = []
    for number in range(case.batches):
        group = number % (POOL // sorted_together)
        at = group * sorted_together + int((number + 0.5) * MEGA / case.batches) * BATCH
        chosen += order[at : at + BATCH]
    processor = Processor.tiny()
    return [prepare(processor, sample(drawn[i], dice, i), i, ROW, 4 * ROW)[0] for i in chosen]


def length(drawn: Drawn) -> int:
    """Tokens, counting that the byte tokenizer spells the roles out, and the end of line behind an image."""
    return drawn.tokens + 11 * len(drawn.turns) + len(drawn.images)


def sample(drawn: Drawn, dice: random.Random, number: int) -> Any:
    """A conversation of these sizes: letters, of which the byte tokenizer makes a token each, and noise."""
    from PIL import Image

    from model.training.data.samples import Sample

    def letters(count: int) -> str:
        return "".join(dice.choices("etaoinshrdlu ", k=count))

    def image(height: int, width: int) -> dict[str, Any]:
        size = (14 * width, 14 * height)
        return {"type": "image", "image": Image.frombytes("RGB", size, dice.randbytes(3 * size[0] * size[1]))}

    messages: list[dict[str, Any]] = []
    for question, answer in drawn.turns:
        messages.append({"role": "user", "content": [letters(question)]})
        messages.append({"role": "assistant", "content": letters(answer - 1) + "."})
    messages[0]["content"] = [*(image(*size) for size in drawn.images), *messages[0]["content"]]
    return Sample(f"{drawn.kind} {number}", messages)


def by_rows(samples: Sequence[Any], number: int) -> Iterator[list[Any]]:
    """Our packer's rows, those that are left open at the end too."""
    from model.training.data.packing import Packer

    packer: Packer[Any] = Packer(ROW, 4 * ROW)
    done = [row for one in shuffled(samples, number) if (row := packer.add(one))]
    yield from (row.samples for row in [*done, *packer.flush()])


def at_random(samples: Sequence[Any], number: int) -> Iterator[list[Any]]:
    yield from as_they_are(shuffled(samples, number), number)


def as_they_are(samples: Sequence[Any], number: int) -> Iterator[list[Any]]:
    yield from (list(samples[at : at + BATCH]) for at in range(0, len(samples), BATCH))


def shuffled(samples: Sequence[Any], number: int) -> list[Any]:
    return random.Random(number).sample(list(samples), len(samples))


def row_of(samples: Sequence[Any]) -> Any:
    from model.packed_row import PackedRow

    return PackedRow.pack([one.inputs for one in samples]).with_media()


def padded(samples: Sequence[Any]) -> dict[str, Any]:
    """What transformers' processor gives for a batch with `padding=True`, and labels."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from model.images import normalise

    tensors = [one.inputs for one in samples]
    ones = [torch.ones_like(one["input_ids"]) for one in tensors]
    batch = {
        "input_ids": pad_sequence([one["input_ids"] for one in tensors], batch_first=True, padding_value=256),
        "labels": pad_sequence([one["labels"] for one in tensors], batch_first=True, padding_value=-100),
        "attention_mask": pad_sequence(ones, batch_first=True),
        "use_cache": False,
    }
    names = {"pixel_values": "pixel_values", "grid_thw": "image_grid_thw", "merge_sizes": "image_merge_sizes"}
    if seen := [one for one in tensors if "pixel_values" in one]:
        batch |= {theirs: normalise(torch.cat([one[ours] for one in seen])) for ours, theirs in names.items()}
    return batch


if __name__ == "__main__":
    main()
