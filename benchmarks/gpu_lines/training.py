"""Training by the trainer as it is, on annotations and PNGs that a line writes."""

from __future__ import annotations

import json
import random
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpu_lines import measures
from gpu_lines.measures import picture
from gpu_lines.proof import Figure, Place
from model.config import ModelConfig
from model.processor import Processor
from model.training.data.annotations import AnnotationSource
from model.training.data.sampler import MixtureSampler
from model.training.dist import DistContext
from model.training.flops import peak_flops
from model.training.recipe import parse_recipe
from model.training.trainer import Step, Trainer
from model.videollama3 import VideoLLaMA3

WARM = 5
"""Steps that are not counted: kernels are compiled and chosen, buffers grow."""


def eager(place: Place) -> Iterator[Figure]:
    """Twenty steps of `2b`, all parts learning, one row of 8,192 tokens each, with activation checkpointing."""
    yield from _twenty_steps(place)


def compiled(place: Place) -> Iterator[Figure]:
    """The same with `compile: true`. A dry run leaves out code generation, which takes a minute on a CPU."""
    if place.dry:
        _compile_without_code()
    yield from _twenty_steps(place, compile=True)


def _twenty_steps(place: Place, **stage: Any) -> Iterator[Figure]:
    torch.manual_seed(0)
    if place.cuda:
        torch.cuda.reset_peak_memory_stats()
    with_data = trainer(
        place.folder, measures.config(place), place.device, side=place.size(448, 56), tokens=place.size(8192, 512),
        steps=place.size(20, 8), checkpointing=True, workers=None, **stage,
    )  # fmt: skip
    steps = [step for _ in range(WARM) if (step := with_data.run_step())]
    used, begin = time.thread_time(), time.perf_counter()
    counted = run(with_data)
    share = (time.thread_time() - used) / (time.perf_counter() - begin)
    steps += counted
    peak = peak_flops(with_data.world.device)
    yield Figure("parameters", sum(p.numel() for p in with_data.model.parameters()) / 1e9, "billion")
    yield Figure("tokens of a row", statistics.mean(step.tokens for step in counted))
    fill = statistics.mean(step.packing_efficiency for step in counted)
    yield Figure("share of the row that they fill", 100 * fill, "%", least=50)
    yield Figure("a step", 1000 * statistics.median(step.seconds for step in counted), "ms")
    yield Figure("rate", statistics.median(step.tokens / step.seconds for step in counted), "tokens/s")
    mfu = peak and statistics.median(step.flops / step.seconds / peak for step in counted)
    yield Figure("MFU", mfu and 100 * mfu, "%")
    waiting = sum(step.data_time for step in counted) / sum(step.seconds for step in counted)
    yield Figure("share of waiting for data", 100 * waiting, "%")
    yield Figure("the thread that trains is busy", 100 * share, "%")
    yield Figure("first step", steps[0].seconds, "s")
    yield Figure("peak memory", torch.cuda.max_memory_allocated() / 2**30 if place.cuda else None, "GiB")
    fall = statistics.mean(step.loss for step in steps[-3:]) / steps[0].loss
    yield Figure("loss of the last three steps by the first", fall, most=place.size(0.9, 0.97))


def _compile_without_code() -> None:
    """Make `compile` of this process trace graphs as always, and run them by PyTorch's own operations."""
    plain = nn.Module.compile

    def compile(module: nn.Module, *args: Any, **settings: Any) -> None:
        plain(module, *args, **{**settings, "backend": "eager"})

    nn.Module.compile = compile  # type: ignore[method-assign]


def graphs(place: Place) -> Iterator[Figure]:
    """Forty rows of all shapes through a trainer with `compile: true`: how many graphs torch.compile makes.

    Graphs are traced and not turned into code, which does not change their number.
    """
    from torch._dynamo.utils import counters

    _compile_without_code()
    shapes = measures.config(place, layers=2, vocabulary=4096)
    uneven = trainer(
        place.folder, shapes, place.device, side=place.size(224, 56), tokens=place.size(2048, 512), uneven=True,
        steps=40, compile=True,
    )  # fmt: skip
    steps = run(uneven)
    yield Figure("rows", len(steps), least=40)
    yield Figure(
        "fewest and most samples in a row", f"{min(s.samples for s in steps)}, {max(s.samples for s in steps)}"
    )
    yield Figure("different numbers of tokens", len({step.tokens for step in steps}))
    yield Figure("graphs", counters["stats"]["unique_graphs"], most=3)
    yield Figure("graph breaks", sum(counters["graph_break"].values()))


def host_syncs(place: Place) -> Iterator[Figure]:
    """How often a step waits for the GPU, with one row and with four: what one more row adds."""
    shapes = measures.config(place, layers=2, vocabulary=4096)
    counts = {}
    places: Counter[str] = Counter()
    for rows in (1, 4):
        folder = place.folder / str(rows)
        folder.mkdir()
        each = trainer(
            folder, shapes, place.device, side=place.size(224, 56), tokens=place.size(2048, 512), steps=6, rows=rows
        )
        for _ in range(3):
            each.run_step()
        if place.cuda:
            torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            each.run_step()
        if place.cuda:
            torch.cuda.set_sync_debug_mode("default")
        each.close()
        waits = [warning for warning in caught if "synchronizing" in str(warning.message)]
        counts[rows] = len(waits)
        places = Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in waits)
    yield Figure("in a step of 1 row", counts[1] if place.cuda else None)
    yield Figure("in a step of 4 rows", counts[4] if place.cuda else None)
    yield Figure("for each further row", (counts[4] - counts[1]) / 3 if place.cuda else None, most=0)
    for where, count in places.most_common(5):
        yield Figure(f"  of a step of 4 rows at {where}", count)


def resume(place: Place) -> Iterator[Figure]:
    """Three steps, a checkpoint, three more; then again from the checkpoint."""
    shapes = measures.config(place, layers=4, vocabulary=4096)

    def begun() -> Trainer:
        return trainer(
            place.folder, shapes, place.device, side=place.size(224, 56), tokens=place.size(2048, 512), steps=6
        )

    first = begun()
    for _ in range(3):
        first.run_step()
    begin = time.perf_counter()
    first.save()
    yield Figure("save", time.perf_counter() - begin, "s")
    size = sum(file.stat().st_size for file in place.folder.glob("all/step-*/*"))
    yield Figure("size of the checkpoint", size / 2**30, "GiB")
    before = [step.loss for step in run(first)]
    begin = time.perf_counter()
    second = begun()
    yield Figure("open again", time.perf_counter() - begin, "s")
    yield Figure("step that it goes on from", second.step, least=3, most=3)
    after = [step.loss for step in run(second)]
    yield Figure("losses of the three steps after it", " ".join(f"{loss:.4f}" for loss in after))
    apart = max(abs(a / b - 1) for a, b in zip(before, after, strict=True))
    # Gradients of embeddings are summed in any order on a GPU.
    yield Figure("relative difference of the losses", apart, most=place.size(1e-3, 0))


def run(each: Trainer) -> list[Step]:
    """Run all steps that are left."""
    try:
        return list(iter(each.run_step, None))
    finally:
        each.close()


def trainer(
    folder: Path,
    shapes: ModelConfig,
    device: str,
    *,
    side: int,
    tokens: int,
    uneven: bool = False,
    workers: int | None = 0,
    **stage: Any,
) -> Trainer:
    """Return a trainer of one stage on captions of the length of detailed ones.

    Args:
        folder: For the data, which are written unless they are there, and for checkpoints.
        shapes: The model, with the byte tokenizer's ids.
        device: `cuda` or `cpu`.
        side: Pixels of a picture's side, or of the largest one's.
        tokens: Tokens of a row, of which half are for pictures.
        uneven: Pictures and captions of many sizes, and texts.
        workers: Number of processes that decode; None: the trainer's default.
        stage: Further settings of the stage.
    """
    file = folder / "all.jsonl"
    if not file.is_file():
        _write(file, side, uneven)
    settings = {
        "name": "all",
        "learning_rates": dict.fromkeys(("vision", "projector", "language"), 3e-4),
        "mixture": {"all": 1.0},
        "tokens": tokens,
        "visual_tokens": tokens // 2,
        "rows": 1,
        "warmup": 0.0,
        "schedule": "constant",
        **stage,
    }
    source = {"annotations": str(file)}
    written = {"model": {"preset": "tiny"}, "sources": {"all": source}, "stages": [settings], "workers": workers}
    recipe = parse_recipe(written, "gpu_proof")
    torch.manual_seed(0)
    return Trainer(
        VideoLLaMA3(shapes, device),
        Processor.tiny(),
        recipe=recipe,
        stage=recipe.stages[0],
        sampler=MixtureSampler([AnnotationSource("all", str(file))], recipe.stages[0].mixture, {}, 0),
        folder=folder / "all",
        world=DistContext(torch.device(device, 0) if device == "cuda" else torch.device(device)),
    )


def _write(file: Path, side: int, uneven: bool) -> None:
    dice = random.Random(0)
    entries = []
    for number in range(64):
        words = f"{number}: " + "a square of coarse noise on a wall of one colour " * 5
        words = words[: dice.randrange(10, 200)] if uneven else words
        if uneven and number % 4 == 0:
            entries.append({"conversations": [_said("human", "Say it."), _said("gpt", words)]})
            continue
        size = dice.randrange(28, side + 1) if uneven else side
        picture(size, number).save(file.with_name(f"{number}.png"))
        turns = [_said("human", "<image>\nDescribe it."), _said("gpt", words)]
        entries.append({"image": [f"{number}.png"], "conversations": turns})
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _said(who: str, what: str) -> dict[str, str]:
    return {"from": who, "value": what}
