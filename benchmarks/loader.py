"""What the training's loader costs over a bare loop that decodes, resizes and cuts the same media.

Patches per second that the loader delivers with 1 and 2 processes (`workers` in recipes), and those of a bare loop in
as many processes: Pillow or PyAV, torch's resize, a reshape. Both start from the same files and end with uint8 patches
of the same sizes; the loader also plans, tokenises, packs, and moves the patches into the trainer's process.

* images: JPEGs of 1,152 x 864 pixels (1 MP) and about 350 kB;
* clips: 720p, 25 frames per second, 20 seconds, of which one frame per second is taken.

There are two bare loops. The plain one resizes an image as channels, height, width. The fast one does it in torch's
memory format channels_last, in half of the time, as the loader does.

Time per patch over that of the plain loop: target ≤ 1.15; over the fast one it is told too. Both in core-seconds,
which other work on the machine moves little, and by the clock. Core-seconds of the loader are those of all its
processes and threads, from one rest to the next, over the patches prepared in between: work that is begun counts for
what it costs. By the clock and two further shares are measured while rows are taken as fast as they come: core-seconds
of the trainer's main thread (target ≤ 2 %) and of all threads of the trainer's process, both over the time that passes.

Variants run in turns, each in a process of its own. Processes have started when a clock starts.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/loader.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from common import machine, verdict
from turns import in_turns, markdown, serve

RATIO, SHARE = 1.15, 0.02
KINDS = ("images", "clips")
PROCESSES = (1, 2)
FILES = {"images": 12, "clips": 3}
SAMPLES = {"images": 288, "clips": 18}  # of a turn
BUFFERED = {"images": 14, "clips": 10}  # samples that the loader has read ahead, besides one per process
WIDTH, HEIGHT, FPS, SECONDS = 1280, 720, 25, 20
PICTURE, GRAIN, QUALITY = (1152, 864), 0.2, 90
STAGE = {"tokens": 16384, "visual_tokens": 10240, "rows": 1, "steps": 10**6, "video_merge": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS), help="media; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--folder", help="serve from the media in this folder")
    parser.add_argument("--only", help="serve this variant, kind and number of processes")
    args = parser.parse_args()
    if args.only:
        variant, kind, count = args.only.split()
        ways = {
            "loader": by_loader,
            "plain": partial(by_bare_loop, fast=False),
            "fast": partial(by_bare_loop, fast=True),
        }
        serve(ways[variant](Path(args.folder), kind, int(count)))
        return
    results: dict[str, Any] = {"machine": machine(("torch", "pillow", "av"))}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for kind in args.kinds:
            for count in PROCESSES:
                works = [f"{variant} {kind} {count}" for variant in ("loader", "plain", "fast")]
                turns = in_turns(__file__, works, args.repeat + 1, ["--folder", folder])
                results[f"{kind} {count}"] = [[one["result"] for one in turn] for turn in turns[1:]]
    if args.json:
        print(json.dumps(results, indent=2))
        return
    columns = ("media", "processes", "patches/s", "plain loop", "fast loop", "core-seconds / plain", "target", "/ fast")
    columns = (*columns, "by the clock / plain")
    rows = [row(kind, count, results[f"{kind} {count}"]) for kind in args.kinds for count in PROCESSES]
    print(f"{results['machine']}\n\n{markdown((*columns, 'main thread', 'target', 'trainer process'), rows)}")


def row(kind: str, count: int, turns: list[list[dict[str, float]]]) -> tuple[str, ...]:
    by_core, by_core_fast, by_clock = (
        [turn[0][key] / turn[0][work] / (turn[loop][key] / turn[loop]["patches"]) for turn in turns]
        for key, work, loop in (
            ("core_seconds", "prepared", 1),
            ("core_seconds", "prepared", 2),
            ("seconds", "patches", 1),
        )
    )
    rates = [statistics.median(one["patches"] / one["seconds"] for one in side) for side in zip(*turns, strict=True)]
    main_thread, trainer = (
        statistics.median(ours[key] / ours["seconds"] for ours, *_ in turns) for key in ("main_thread", "trainer")
    )
    return (
        kind,
        str(count),
        *(f"{rate:,.0f}" for rate in rates),
        f"{statistics.median(by_core):.2f} ({min(by_core):.2f} to {max(by_core):.2f})",
        verdict(statistics.median(by_core), RATIO),
        f"{statistics.median(by_core_fast):.2f} ({min(by_core_fast):.2f} to {max(by_core_fast):.2f})",
        f"{statistics.median(by_clock):.2f} ({min(by_clock):.2f} to {max(by_clock):.2f})",
        f"{main_thread:.2%}",
        verdict(main_thread, SHARE),
        f"{trainer:.1%}",
    )


# Media


def write(folder: Path) -> None:
    """Write pictures, clips and their annotations."""
    dice = random.Random(0)
    for number in range(FILES["images"]):
        scene(*PICTURE, dice).save(folder / f"{number}.jpg", quality=QUALITY)
    for number in range(FILES["clips"]):
        film(folder / f"{number}.mp4", dice)
    for kind, media, suffix in (("images", "image", "jpg"), ("clips", "video", "mp4")):
        turns = [{"from": "human", "value": f"<{media}>\nWhat is it?"}, {"from": "gpt", "value": "A picture. " * 20}]
        entries = [{media: f"{number}.{suffix}", "conversations": turns} for number in range(FILES[kind])]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def scene(width: int, height: int, dice: random.Random) -> Any:
    """A picture with smooth areas, edges and grain."""
    from PIL import Image

    grids = [(width // 64, height // 64), (width // 4, height // 4)]
    smooth, grain = (
        Image.frombytes("RGB", size, dice.randbytes(3 * size[0] * size[1])).resize((width, height), filter_)
        for size, filter_ in zip(grids, (Image.Resampling.BICUBIC, Image.Resampling.NEAREST), strict=True)
    )
    return Image.blend(smooth, grain, GRAIN)


def film(path: Path, dice: random.Random) -> None:
    """A camera that moves over a scene."""
    from fractions import Fraction

    import av

    whole = scene(WIDTH + 3 * FPS * SECONDS, HEIGHT + FPS * SECONDS, dice)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "50", "crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FPS * SECONDS):
            left, top = 3 * number, number
            frame = av.VideoFrame.from_image(whole.crop((left, top, left + WIDTH, top + HEIGHT)))
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sources(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob("*.jpg" if kind == "images" else "*.mp4"))


# The loader


def by_loader(folder: Path, kind: str, count: int) -> Callable[[], dict[str, float]]:
    from model.processor import Processor
    from model.training.data.annotations import AnnotationSource
    from model.training.data.loader import Loader
    from model.training.data.sampler import MixtureSampler
    from model.training.data.samples import Sample
    from model.training.stage import Stage

    class Counting(AnnotationSource):
        read = 0

        def sample(self, row: int) -> Sample:
            self.read += 1  # threads may read at once: the interpreter lock is not given up in an addition
            return super().sample(row)

    source = Counting(kind, str(folder / f"{kind}.jsonl"))
    stage = Stage.model_validate({"name": "all", "learning_rates": {"": 1.0}, "mixture": {kind: 1.0}, **STAGE})
    sampler = MixtureSampler([source], stage.mixture, {}, 0)
    loader = Loader(sampler, Processor.tiny(), stage, processes=count)
    taken(loader, 1)
    rest()

    def run() -> dict[str, float]:
        at_rest, read = clock(), source.read
        taken(loader, BUFFERED[kind] + 3 * count)  # and some more, so that all processes are at work
        before, main_thread, trainer = clock(), time.thread_time(), time.process_time()
        patches, samples = taken(loader, SAMPLES[kind])
        results = {
            "patches": patches,
            "main_thread": time.thread_time() - main_thread,
            "trainer": time.process_time() - trainer,
            "seconds": since(before)["seconds"],
        }
        rest()
        prepared = (source.read - read) * patches / samples
        return {**results, "prepared": prepared, "core_seconds": since(at_rest)["core_seconds"]}

    return run


def taken(loader: Any, least: int) -> tuple[int, int]:
    """Take rows with at least so many samples, and return the number of their patches and of the samples."""
    patches = samples = 0
    while samples < least:
        (row,) = next(loader).rows
        samples += len(row.samples)
        patches += sum(sample.patches for sample in row.samples)
    return patches, samples


# The bare loop


def by_bare_loop(folder: Path, kind: str, count: int, fast: bool) -> Callable[[], dict[str, float]]:
    import torch

    torch.set_num_threads(1)
    size = planned(folder, kind)
    files = sources(folder, kind)
    jobs = [(str(files[number % len(files)]), size) for number in range(SAMPLES[kind])]
    cut = partial(cut_image if kind == "images" else cut_clip, fast=fast)
    pool = multiprocessing.get_context("spawn").Pool(count, torch.set_num_threads, (1,)) if count > 1 else None

    def run() -> dict[str, float]:
        before = clock()
        patches = sum(pool.imap_unordered(cut, jobs) if pool else map(cut, jobs))
        return {"patches": patches, **since(before)}

    return run


def planned(folder: Path, kind: str) -> tuple[int, int]:
    """The height and width that the loader gives the media of a kind."""
    from model.media import MediaLoader
    from model.processor import Processor
    from model.sizes import plan_sizes

    name = "image" if kind == "images" else "video"
    config = Processor.tiny().config
    loader = MediaLoader([{"type": name, name: str(sources(folder, kind)[0])}], config)
    (size,) = plan_sizes([loader.item], int(STAGE["visual_tokens"]))
    return size


def cut_image(job: tuple[str, tuple[int, int]], fast: bool) -> int:
    import numpy as np
    import torch
    from PIL import Image

    file, size = job
    with Image.open(file) as image:
        return cut(torch.from_numpy(np.array(image.convert("RGB"))), size, 1, fast)


def cut_clip(job: tuple[str, tuple[int, int]], fast: bool) -> int:
    import av
    import torch

    file, size = job
    patches, due = 0, 0
    with av.open(file) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if frame.time >= due:
                patches += cut(torch.from_numpy(frame.to_ndarray(format="rgb24")), size, 2, fast)
                due += 1
            if due == SECONDS:
                break
    return patches


def cut(pixels: Any, size: tuple[int, int], merge: int, fast: bool) -> int:
    from torch.nn.functional import interpolate

    # Both are views; only the strides of the first dimension differ (`model.images.with_channels_last`).
    image = pixels[None].permute(0, 3, 1, 2) if fast else pixels.permute(2, 0, 1)[None]
    resized = interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
    blocks = resized.view(3, size[0] // (14 * merge), merge, 14, size[1] // (14 * merge), merge, 14)
    return len(blocks.permute(1, 4, 2, 5, 0, 3, 6).reshape(-1, 588))


# Clocks


def clock() -> tuple[float, float]:
    """Seconds, and core-seconds of this process and of those that it has started (Linux)."""
    ticks = sum(int(field) for fields in children() for field in fields[11:13])
    return time.perf_counter(), time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def children() -> Iterator[list[str]]:
    """The fields of /proc/N/stat after the name, of each child. All of /proc would cost as much as an image to read."""
    for thread in Path("/proc/self/task").iterdir():
        try:
            for number in (thread / "children").read_text().split():
                yield Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue


def since(before: tuple[float, float]) -> dict[str, float]:
    seconds, core_seconds = (now - then for now, then in zip(clock(), before, strict=True))
    return {"seconds": seconds, "core_seconds": core_seconds}


def rest() -> None:
    """Wait until the loader has read ahead, so that it does not work in another's turn."""
    busy = True
    while busy:
        before = clock()
        time.sleep(1)
        busy = since(before)["core_seconds"] > 0.03


if __name__ == "__main__":
    main()
