"""What the loader delivers, and the rows that it makes. Media and measurements are those of benchmarks/loader.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import loader as benchmark
import torch

from gpu_lines.measures import seconds
from gpu_lines.proof import Figure, Place
from model.images import normalise
from model.processor import Processor
from model.training.data.annotations import AnnotationSource
from model.training.data.loader import Loader
from model.training.data.prepare import for_stage
from model.training.data.sampler import MixtureSampler
from model.training.stage import Stage


def loader(place: Place) -> Iterator[Figure]:
    """Patches per second for images of 1 MP, and for clips of 720p where PyAV is installed.

    Media are few and each is measured once, so the limit is wider than the benchmark's.
    """
    _write(place)
    most = place.size(max(min((os.cpu_count() or 1) - 2, 16), 1), 1)
    for kind, few, many in (("images", 96, 1440), ("clips", 12, 96)):
        if not benchmark.FILES[kind]:
            yield Figure(f"{kind} (no av)", None)
            continue
        benchmark.SAMPLES = {kind: place.size(few, 2)}
        bare = benchmark.by_bare_loop(place.folder, kind, 1, fast=False)()
        yield Figure(f"{kind}: bare loop on one core", bare["patches"] / bare["seconds"], "patches/s")
        for count in sorted({1, most}):
            benchmark.SAMPLES = {kind: place.size(few if count == 1 else many, 2)}
            ours = benchmark.by_loader(place.folder, kind, count)()
            yield Figure(f"{kind}: {count} processes", ours["patches"] / ours["seconds"], "patches/s")
            cost = ours["core_seconds"] / ours["prepared"] / (bare["core_seconds"] / bare["patches"])
            yield Figure(f"{kind}: core-seconds by the bare loop's", cost, most=place.size(1.3, None))
            share, most_share = ours["main_thread"] / ours["seconds"], place.size(100 * benchmark.SHARE, None)
            yield Figure(f"{kind}: share of the thread that trains", 100 * share, "%", most=most_share)


def _write(place: Place) -> None:
    benchmark.FILES = {"images": place.size(16, 2), "clips": place.size(4, 1) if find_spec("av") else 0}
    benchmark.SECONDS = place.size(4, 1)
    benchmark.write(place.folder)


def pinned(place: Place) -> Iterator[Figure]:
    """A row as it comes from the loader: bytes, pinned, and normalised on the device to the pixels of the CPU."""
    _write(place)
    source = AnnotationSource("images", str(place.folder / "images.jsonl"))
    stage = Stage.model_validate(
        {"name": "all", "learning_rates": {"": 1.0}, "mixture": {"images": 1.0}, **benchmark.STAGE}
    )
    sampler = MixtureSampler([source], stage.mixture, {}, 0)
    device = torch.device(place.device, 0) if place.cuda else torch.device("cpu")
    loaded = Loader(sampler, Processor.tiny(), stage, device=device)
    try:
        row = next(loaded).rows[0].inputs
    finally:
        loaded.close()
    pixels = row.pixel_values
    yield Figure("dtype of patches", str(pixels.dtype).removeprefix("torch."))
    yield Figure("bytes of a patch", pixels[0].nbytes, most=588)
    yield Figure("pinned", int(pixels.is_pinned()) if place.cuda else None, least=1)
    taken = seconds(place, lambda: row.to(place.device, non_blocking=True), repeat=10)
    yield Figure("copy to the device", pixels.nbytes / taken / 1e9 if place.cuda else None, "GB/s")
    moved = row.to(place.device).pixel_values
    yield Figure("pixels that the device normalises to other bits", _differing(moved, pixels), most=0)
    processor, conversation = for_stage(Processor.tiny(), stage), source.sample(0).conversation
    sample, raw = processor(conversation), processor(conversation, raw_pixels=True)
    values = raw.pixel_values.float().sub(127.5).div(127.5)
    yield Figure("values off the processor's float32 by", float((values - sample.pixel_values).abs().max()), most=0)


def _differing(moved: torch.Tensor, pixels: torch.Tensor) -> int:
    return int((normalise(moved).cpu() != normalise(pixels)).sum())
