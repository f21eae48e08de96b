"""Memory of a film that is watched as it runs, at 1,000 and at 10,000 frames.

A tiny model, a window of 64 frames of 2 x 3 merged tokens, half of them moving; a question every 500 frames. Told is
the resident memory of the process, the largest since the first 500 frames. Target: at most 1.05 times as much at 10,000
frames as at 1,000.

    .venv/bin/python benchmarks/stream.py
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from pathlib import Path

import numpy as np
import torch
from common import machine, report, verdict

from model import Processor, VideoLLaMA3
from model.config import preset
from model.processor_config import ProcessorConfig, TokenLimits
from model.stream import Stream

TARGET = 1.05
WINDOW, EVERY, WARM = 64, 500, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000, help="frames (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    results = {"machine": machine(("torch", "transformers")), **measure(args.frames)}
    ratio = results["MiB"][args.frames] / results["MiB"][args.frames // 10]
    results["ratio"] = ratio
    rows = [(f"{count:,}", f"{mib:.0f}", f"{results['s'][count]:.0f}") for count, mib in results["MiB"].items()]
    report(results, ("frames", "MiB", "s"), [*rows, ("ratio", f"{ratio:.3f}", verdict(ratio, TARGET))], args.json)


def measure(frames: int) -> dict[str, dict[int, float]]:
    """Return the largest resident memory, MiB, and the time, s, at a tenth of the frames and at the end."""
    torch.manual_seed(0)
    config = ProcessorConfig(video=TokenLimits(merge=2, min_tokens=1))
    stream = Stream(
        VideoLLaMA3(preset("tiny")).eval(),
        Processor(Processor.tiny().tokenizer, config),
        window=WINDOW,
        max_new_tokens=8,
    )
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (56, 84, 3), dtype=np.uint8)
    largest, began = 0.0, time.perf_counter()
    memory, seconds = dict[int, float](), dict[int, float]()
    for number in range(1, frames + 1):
        frame = still.copy()
        frame[:28] = rng.integers(0, 256, (28, 84, 3), dtype=np.uint8)
        stream.push(frame, number)
        if number % EVERY == 0:
            list(stream.ask("What has changed?"))
            gc.collect()
        if number > WARM and number % 10 == 0:
            largest = max(largest, _resident())
        if number in (frames // 10, frames):
            memory[number], seconds[number] = largest, time.perf_counter() - began
    return {"MiB": memory, "s": seconds}


def _resident() -> float:
    """Memory of this process now, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
