"""What the trainer loses beside the model: waiting for data, and checkpoints.

The trainer as it is, on annotations and JPEGs on the disk: the mixture of mixture.py without clips, its images being
photographs of about 640 x 480 pixels, which shrink to 512 tokens a conversation. They are read, decoded, resized and
packed by the trainer's threads, on the cores on which the model runs. Steps of two rows of 4,096 tokens, float32.

* the share of a step in which the model waits for its rows, of all steps but the first two. Target: ≤ 2 % with 30 M
  parameters; the preset `tiny` is told, since it asks for ten times as many samples;
* seconds in which a checkpoint is saved (weights, moments, where the loader stands, on the disk by fsync), and in which
  a training goes on from it: reading, reading open samples again, up to when the next rows are there. The step that
  follows is compared with the one that the first trainer does: losses must be equal to the bit.

    .venv/bin/python benchmarks/trainer.py
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packed
from common import jpegs, machine, report, spread, verdict
from mixture import SHARES, Drawn, draw

TARGET = 0.02
SIZES = ("tiny", "30m")
KINDS = [kind for kind in SHARES if kind != "clip"]
WARM = 2
SAVES = 3
PICTURES, SAMPLES = 120, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="of each model, with two to warm up (default %(default)s)")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES), help="models; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(("torch", "pillow"))}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for size in args.sizes:
            results[size] = measure(Path(folder), size, args.steps)
    rows = [row for size in args.sizes for row in lines(size, results[size])]
    report(results, ("model", "what", "measured", "target"), rows, args.json)


def write(folder: Path) -> None:
    """Annotations, and pictures beside them."""
    dice = random.Random(0)
    for number, data in enumerate(jpegs(PICTURES, print)):
        (folder / f"{number}.jpg").write_bytes(data)
    entries = [entry(drawn, dice) for drawn in draw(SAMPLES, 0, KINDS)]
    (folder / "all.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))


def entry(drawn: Drawn, dice: random.Random) -> dict[str, Any]:
    def letters(count: int) -> str:
        return "".join(dice.choices("etaoinshrdlu ", k=count)) + "."

    turns = [
        turn for question, answer in drawn.turns for turn in (("human", letters(question)), ("gpt", letters(answer)))
    ]
    messages = [{"from": who, "value": what} for who, what in turns]
    images = [f"{dice.randrange(PICTURES)}.jpg" for _ in drawn.images]
    messages[0]["value"] = "<image>\n" * len(images) + messages[0]["value"]
    return {"conversations": messages} | ({"image": images} if images else {})


def measure(folder: Path, size: str, steps: int) -> dict[str, Any]:
    recipe = start(folder, size)
    trainer = begin(recipe, folder / size)
    done = [trainer.run_step() for _ in range(steps)]
    saved = [seconds(trainer.save) for _ in range(SAVES)]
    goes_on = trainer.run_step()
    trainer.close()
    stored = sum(file.stat().st_size for file in (folder / size).rglob("*.safetensors"))
    then = time.perf_counter()
    resumed = begin(recipe, folder / size)
    restored = time.perf_counter() - then
    again = resumed.run_step()
    resumed.close()
    if again.loss != goes_on.loss:
        raise SystemExit(f"{size}: after the checkpoint the loss is {again.loss}, without it {goes_on.loss}")
    return {
        "seconds": [step.seconds for step in done[WARM:]],
        "waiting": [step.data_time for step in done[WARM:]],
        "tokens": [step.tokens for step in done[WARM:]],
        "samples": [step.samples for step in done[WARM:]],
        "fill": [step.packing_efficiency for step in done[WARM:]],
        "first": [done[0].data_time, done[0].seconds],
        "save": saved,
        "mib": stored / 2**20,
        "resume": restored + again.data_time,
    }


def lines(size: str, results: dict[str, Any]) -> list[tuple[str, ...]]:
    whole = sum(results["seconds"])
    share = sum(results["waiting"]) / whole
    worst = max(wait / step for wait, step in zip(results["waiting"], results["seconds"], strict=True))
    rates = f"{sum(results['tokens']) / whole:,.0f} tokens/s, {sum(results['samples']) / whole:.1f} samples/s"
    return [
        (size, "a step, s", f"{spread(results['seconds'])}; {rates}, fill {statistics.mean(results['fill']):.3f}", ""),
        (
            size,
            "waiting for data",
            f"{share:.2%}, at most {worst:.2%}",
            verdict(share, TARGET) if size == "30m" else "",
        ),
        (size, "waiting in the first step, s", f"{results['first'][0]:.2f} of {results['first'][1]:.2f}", ""),
        (size, f"save {results['mib']:,.0f} MiB, s", spread(results["save"]), ""),
        (size, "resume, s", f"{results['resume']:.2f}", ""),
    ]


def start(folder: Path, size: str) -> Any:
    """The recipe of one stage, and the model that it begins with."""
    import torch

    from model.processor import Processor
    from model.training.recipe import parse_recipe
    from model.videollama3 import VideoLLaMA3

    torch.manual_seed(0)
    checkpoint = folder / f"{size}-start"
    VideoLLaMA3(packed.config(size)).save_pretrained(checkpoint)
    Processor.tiny().save_pretrained(checkpoint)
    stage = {
        "name": "all",
        "learning_rates": {"vision": 1e-4, "projector": 1e-4, "language": 1e-4},
        "mixture": {"all": 1.0},
        "tokens": 4096,
        "visual_tokens": 512,
        "rows": 2,
        "steps": 1000,
    }
    written = {
        "model": {"checkpoint": str(checkpoint)},
        "sources": {"all": {"annotations": str(folder / "all.jsonl")}},
        "stages": [stage],
        "threads": 2,
    }
    return parse_recipe(written, "benchmark")


def begin(recipe: Any, out: Path) -> Any:
    """The trainer of its stage: from the beginning, or from the checkpoint that is there."""
    from model.training.data.sampler import MixtureSampler
    from model.training.dist import DistContext
    from model.training.run import open_sources
    from model.training.start import open_start
    from model.training.trainer import Trainer

    (stage,) = recipe.stages
    model, processor = open_start(recipe.model, recipe.seed)
    sampler = MixtureSampler(list(open_sources(recipe).values()), stage.mixture, {}, recipe.seed)
    return Trainer(model, processor, recipe=recipe, stage=stage, sampler=sampler, folder=out, world=DistContext.here())


def seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
