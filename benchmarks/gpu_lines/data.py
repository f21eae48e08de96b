"""What the loader delivers, and the rows that it makes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from gpu_lines.measures import picture, seconds
from gpu_lines.proof import Figure, Place
from model.images import normalise
from model.processor import Processor
from model.training.data.annotations import AnnotationSource
from model.training.data.loader import Loader
from model.training.data.prepare import for_stage
from model.training.data.sampler import MixtureSampler
from model.training.stage import Stage


def loader(place: Place) -> Iterator[Figure]:
    """Patches per second for images of 1,024 x 1,024 pixels, and for clips where PyAV is installed."""
    for kind, count in (("images of 1 MP", place.size(16, 2)), ("clips of 720p", place.size(4, 1))):
        if kind.startswith("clips") and find_spec("av") is None:
            yield Figure(f"{kind} (no av)", None)
            continue
        source = _source(place, kind, count)
        bare = _bare_loop(place, source)
        yield Figure(f"{kind}: bare loop on one core", bare, "patches/s")
        most = place.size(max(min((os.cpu_count() or 1) - 2, 16), 1), 1)
        for processes in sorted({1, most}):
            rate, share = _rate(place, source, processes)
            yield Figure(f"{kind}: {processes} processes", rate, "patches/s")
            if processes == 1:
                yield Figure(f"{kind}: bare loop's rate by it", bare / rate, most=place.size(1.15, None))
            yield Figure(f"{kind}: thread that trains, busy", 100 * share, "%", most=place.size(2, None))


def pinned(place: Place) -> Iterator[Figure]:
    """A row as it comes from the loader: bytes, pinned, and normalised on the device to the pixels of the CPU."""
    source = _source(place, "images of 1 MP", 4)
    loaded = _loader(place, source, processes=0)
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
    sample = for_stage(Processor.tiny(), _stage(place))(source.sample(0).conversation)
    raw = for_stage(Processor.tiny(), _stage(place))(source.sample(0).conversation, raw_pixels=True)
    values = raw.pixel_values.float().sub(127.5).div(127.5)
    yield Figure("values off the processor's float32 by", float((values - sample.pixel_values).abs().max()), most=0)


def _differing(moved: torch.Tensor, pixels: torch.Tensor) -> int:
    return int((normalise(moved).cpu() != normalise(pixels)).sum())


def _stage(place: Place) -> Stage:
    tokens = place.size(16384, 6144)
    return Stage.model_validate(
        {
            "name": "all",
            "learning_rates": {"": 1e-4},
            "mixture": {"all": 1.0},
            "tokens": tokens,
            "visual_tokens": tokens - 512,
            "rows": 1,
            "epochs": 1000,
        }
    )


def _source(place: Place, kind: str, count: int) -> AnnotationSource:
    folder = place.folder / kind.split()[0]
    folder.mkdir(exist_ok=True)
    entries = []
    for number in range(count):
        name, mark = (f"{number}.jpg", "image") if kind.startswith("images") else (f"{number}.mp4", "video")
        if mark == "image":
            picture(1024, number).save(folder / name, quality=90)
        else:
            _clip(folder / name, seconds=place.size(10, 2))
        turns = [{"from": "human", "value": f"<{mark}>\nDescribe it."}, {"from": "gpt", "value": "Coarse noise."}]
        entries.append({mark: [name], "conversations": turns})
    file = folder / "all.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return AnnotationSource("all", str(file))


def _clip(path: Path, seconds: int) -> None:
    """Write a film of 1280 x 720 pixels, 25 frames a second, in which a picture moves."""
    import av

    wide = picture(1400)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 1280, 720, "yuv420p", 4_000_000
        for number in range(25 * seconds):
            at = number % 100
            frame = av.VideoFrame.from_image(wide.crop((at, at, at + 1280, at + 720)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _loader(place: Place, source: AnnotationSource, processes: int) -> Loader:
    stage = _stage(place)
    sampler = MixtureSampler([source], stage.mixture, {}, 0)
    device = torch.device(place.device, 0) if place.cuda else torch.device("cpu")
    return Loader(sampler, Processor.tiny(), stage, processes=processes, device=device)


def _bare_loop(place: Place, source: AnnotationSource) -> float:
    """Return the patches per second of a loop over the processor in this thread."""
    processor = for_stage(Processor.tiny(), _stage(place))
    torch.set_num_threads(1)
    patches, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < place.size(3, 0.5):
        for row in range(source.rows):
            patches += len(processor(source.sample(row).conversation, labels=True, raw_pixels=True).pixel_values)
    return patches / (time.perf_counter() - begin)


def _rate(place: Place, source: AnnotationSource, processes: int) -> tuple[float, float]:
    """Return the patches per second of the loader, and the share of a core that the calling thread uses."""
    loaded = _loader(place, source, processes)
    try:
        for _ in range(place.size(6, 2)):  # what was prepared ahead
            next(loaded)
        patches, begin, used = 0, time.perf_counter(), time.thread_time()
        while time.perf_counter() - begin < place.size(4, 0.5):
            patches += sum(len(row.inputs.pixel_values) for row in next(loaded).rows)
        taken = time.perf_counter() - begin
        return patches / taken, (time.thread_time() - used) / taken
    finally:
        loaded.close()
