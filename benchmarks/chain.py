"""A small chain of filters as a command, against a loop that one would write by hand: start-up counts.

Both are whole processes, from their start to their exit, over the same folder of JPEGs (20 to 60 kB) with alt texts:

* loop: one process with torch's threads. It imports torch and open_clip, loads the model, and goes through the images
  in batches of 64: decode, open_clip's transform, both towers, aesthetic head, cosine; it writes one file of results;
* command: `vl3syn run` of aspect_ratio, clip, clip_text, aesthetic and similarity into a new run directory.

The model has open_clip's architecture and random weights. CPU seconds are those of all processes that a command
starts, looked up three times a second. `--ray` asks for an actor, which only Ray has, as many rows and clusters do.
Targets: command ≤ 1.6 × loop with 500 images, ≤ 1.15 × with 5,000; wall time, medians, `--precision bfloat16`.

    .venv/bin/python benchmarks/chain.py --images 500
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_throughput import BATCH, checkpoint
from common import SCRATCH, jpegs, machine, report, spread, verdict

TARGETS = {500: 1.6, 5_000: 1.15}
MOST = 4.0  # width to height of what the filter keeps
WORDS = "a photograph of a garden with a red door and two people beside a tree".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="images (default %(default)s)")
    parser.add_argument("--architecture", default="ViT-B-32", help="as open_clip names it (default %(default)s)")
    parser.add_argument("--precision", help="of both, such as bfloat16; default: float32, auto")
    parser.add_argument("--ray", action="store_true", help="let Ray compute the stages with a model")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--loop", nargs=2, metavar=("POOL", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.loop:
        loop(Path(args.loop[0]), args.loop[1], args.architecture, args.precision or "float32")
        return

    folder = checkpoint(args.architecture)
    head(Path(folder))
    pool = SCRATCH / f"chain-{args.images}"
    make_pool(pool, args.images)
    results: dict[str, Any] = {"machine": machine(), "images": args.images, "loop": [], "command": []}
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        written = Path(scratch, "recipe.yaml")
        written.write_text(json.dumps(recipe(pool, folder, args.precision, args.ray)))
        options = ["--architecture", args.architecture, *(["--precision", args.precision] if args.precision else [])]
        by_hand = [sys.executable, __file__, *options, "--loop", str(pool), f"{scratch}/loop.npz"]
        command = [sys.executable, "-m", "pipeline", "run", str(written), "--run", f"{scratch}/run", "--json"]
        for _ in range(args.repeat):
            results["loop"].append(measured(by_hand))
            shutil.rmtree(f"{scratch}/run", ignore_errors=True)
            results["command"].append(measured(command))
    report(results, ("what", "seconds (min to max)", "CPU seconds", "× loop", "target"), table(results), args.json)


def table(results: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for what in ("loop", "command"):
        walls, cpus = zip(*results[what], strict=True)
        ratio = statistics.median(walls) / statistics.median(wall for wall, _ in results["loop"])
        target = TARGETS.get(results["images"]) if what == "command" else None
        yield what, spread(walls), spread(cpus), f"{ratio:.2f}", verdict(ratio, target) if target else ""


def recipe(pool: Path, encoder: str, precision: str | None, ray: bool) -> dict[str, Any]:
    """The recipe, as a mapping."""
    model: dict[str, Any] = {"encoder": encoder, **({"precision": precision} if precision else {})}
    if ray:
        model["resources"] = {"actors": 1}
    weights = f"{encoder}/{HEAD}"
    stages = [
        {"stage": "aspect_ratio", "keep": {"max": MOST}},
        {"stage": "clip", **model},
        {"stage": "clip_text", "texts": ["alt_text"], **model},
        {"stage": "aesthetic", "predictor": "laion-v1", "weights": weights, "encoder": encoder},
        {"stage": "similarity", "texts": ["alt_text"]},
    ]
    return {"name": "chain", "pool": {"images": str(pool.absolute())}, "stages": stages}


def measured(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and of all processes that it starts."""
    mark = uuid.uuid4().hex
    begin = time.perf_counter()
    errors = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, "BENCH": mark})
    cpu: dict[str, float] = {}
    while process.poll() is None:
        cpu |= cpu_seconds(mark.encode())
        time.sleep(0.3)
    seconds = time.perf_counter() - begin
    if process.returncode:
        errors.seek(0)
        sys.exit(f"{' '.join(command)} failed:\n{errors.read()}")
    return seconds, sum(cpu.values())


def cpu_seconds(mark: bytes) -> dict[str, float]:
    """CPU seconds so far of each process with `mark` in its environment."""
    seconds = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                seconds[process.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:  # it has ended
            continue
    return seconds


HEAD = "head/aesthetic.safetensors"


def head(encoder: Path) -> None:
    """A linear aesthetic head with random weights, beside the encoder."""
    import numpy as np
    from safetensors.numpy import save_file

    width = json.loads((encoder / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    (encoder / HEAD).parent.mkdir(exist_ok=True)
    weight = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    save_file({"weight": weight, "bias": np.zeros(1, np.float32)}, encoder / HEAD)


def make_pool(folder: Path, images: int) -> None:
    """A folder of JPEGs, 500 to a subfolder, each with an alt text; 250 distinct ones, several times."""
    if folder.is_dir():
        return
    encoded = jpegs(min(images, 250), lambda text: print(text, file=sys.stderr))
    for number in range(images):
        file = folder / f"{number // 500:03d}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded[number % len(encoded)])
        file.with_suffix(".txt").write_text(" ".join(WORDS[number % 7 : 7 + number % 8]))


def loop(pool: Path, out: str, architecture: str, precision: str) -> None:
    """What one would write by hand."""
    import numpy as np
    import open_clip
    import torch
    from PIL import Image, ImageOps
    from safetensors.numpy import load_file

    encoder, dtype = checkpoint(architecture), getattr(torch, precision)
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{encoder}")
    network, tokenize = network.to(dtype).eval(), open_clip.get_tokenizer(f"local-dir:{encoder}")
    weight = load_file(f"{encoder}/{HEAD}")["weight"]
    files, results = sorted(pool.rglob("*.jpg")), []
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            images, texts = [], []
            for file in files[start : start + BATCH]:
                image = ImageOps.exif_transpose(Image.open(io.BytesIO(file.read_bytes())))
                if max(image.size) <= MOST * min(image.size):
                    images.append(transform(image))
                    texts.append(file.with_suffix(".txt").read_text())
            pictures = network.encode_image(torch.stack(images).to(dtype), normalize=True).float().numpy()
            words = network.encode_text(tokenize(texts), normalize=True).float().numpy()
            results.append(np.column_stack([pictures, words, pictures @ weight.T, (pictures * words).sum(1)]))
    np.save(out, np.concatenate(results))


if __name__ == "__main__":
    main()
