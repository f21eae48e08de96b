"""CLIP over photographs in webdataset tars, against bare loops with the same model over the same bytes.

The model has open_clip's architecture and random weights: speed does not depend on them, and no hub is needed.
Measured, one after the other in each repetition, with the pool in the page cache and the model loaded:

* bare loop: one process reads each image, decodes it and transforms it by open_clip's own transform, and encodes
  batches of 64 with all cores (or the GPU). Nothing is stored, no error is caught;
* bare loop with threads: the same, with as many threads as cores that decode one batch ahead;
* pipeline: the stage `clip` through the runner into a new run directory, with one actor that holds all cores (and the
  GPU), from the first row that it takes to the last one stored.

Then the embeddings of loop and pipeline are compared (cosine). Target: pipeline ≤ 1.10 × the bare loop, wall time,
medians. On a GPU, with `--architecture ViT-L-14 --images 20000`: ≥ 1,000 images/s on one H100.

    .venv/bin/python benchmarks/clip_throughput.py
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import SCRATCH, machine, report, spread, verdict
from index_headers import make_pool

TARGET = 1.10
BATCH = 64
PER_TAR = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="ViT-B-32", help="as open_clip names it (default %(default)s)")
    parser.add_argument("--images", type=int, default=2_000, help="a multiple of 500 (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    tars = math.ceil(args.images / PER_TAR)
    pool = make_pool(SCRATCH / f"tars-{tars}-{PER_TAR}", tars, PER_TAR)
    encoder = checkpoint(args.architecture)
    images = [data for tar in sorted(pool.glob("*.tar")) for data in members(tar)]
    results: dict[str, Any] = {"machine": machine() + device(), "rows": len(images), "architecture": args.architecture}
    loop = Loop(encoder)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        loop.run(images[:BATCH], threads=0)  # warm
        alone, threaded, piped, idle = [], [], [], []
        for number in range(args.repeat):
            alone.append(loop.run(images, threads=0))
            threaded.append(loop.run(images, threads=os.cpu_count() or 1))
            working, waited = pipeline(f"{pool}/*.tar", f"{scratch}/run-{number}", encoder)
            piped.append(working)
            idle.append(waited)
        results["least_cosine"] = compare(loop.vectors, f"{scratch}/run-0")
    results |= {"bare_s": alone, "bare_threads_s": threaded, "pipeline_s": piped, "idle": idle}
    report(results, ("what", "seconds (min to max)", "images/s", "× bare loop", "target"), table(results), args.json)
    if not args.json:
        print(
            f"encoder idle: {statistics.median(idle):.1%}; "
            f"least cosine, loop to pipeline: {results['least_cosine']:.5f}"
        )


def table(results: dict[str, Any]) -> Iterable[tuple[object, ...]]:
    names = {"bare_s": "bare loop", "bare_threads_s": "bare loop, threads decode ahead", "pipeline_s": "pipeline"}
    for key, name in names.items():
        seconds = statistics.median(results[key])
        ratio = seconds / statistics.median(results["bare_s"])
        target = verdict(ratio, TARGET) if key == "pipeline_s" else ""
        yield name, spread(results[key]), f"{results['rows'] / seconds:,.1f}", f"{ratio:.2f}", target


def checkpoint(architecture: str) -> str:
    """A folder with random weights of that architecture, made once."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = SCRATCH / f"{architecture}-random"
    if not (folder / "open_clip_config.json").is_file():
        print(f"making {folder}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        state = open_clip.create_model(architecture).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")
        config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    return str(folder.absolute())


def device() -> str:
    import torch

    return f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "; no GPU"


def members(tar: Path) -> Iterator[bytes]:
    with tarfile.open(tar) as archive:
        for member in archive:
            yield archive.extractfile(member).read()  # type: ignore[union-attr]


class Loop:
    """What one would write by hand."""

    def __init__(self, encoder: str) -> None:
        import open_clip

        from core.precision import device_and_dtype

        self.device, self.dtype = device_and_dtype()
        network, _, self.transform = open_clip.create_model_and_transforms(f"local-dir:{encoder}")
        self.network = network.to(self.device, self.dtype).eval()
        self.vectors = np.zeros(0)

    def run(self, images: list[bytes], threads: int) -> float:
        """Seconds over all images."""
        import torch

        begin = time.perf_counter()
        vectors = []
        with torch.inference_mode(), ThreadPoolExecutor(max(threads, 1)) as pool:
            batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
            ahead = [pool.submit(self._decode, data) for data in batches[0]] if threads else []
            for number, batch in enumerate(batches):
                following = batches[number + 1] if number + 1 < len(batches) else []
                pixels = [f.result() for f in ahead] if threads else [self._decode(data) for data in batch]
                ahead = [pool.submit(self._decode, data) for data in following] if threads else []
                stacked = torch.stack(pixels).to(self.device, self.dtype)
                vectors.append(self.network.encode_image(stacked, normalize=True).float().cpu().numpy())
        self.vectors = np.concatenate(vectors)
        return time.perf_counter() - begin

    def _decode(self, data: bytes) -> Any:
        from PIL import Image, ImageOps

        return self.transform(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def pipeline(tars: str, url: str, encoder: str) -> tuple[float, float]:
    """Seconds from the first row taken to the last one stored, and the encoder's idle share."""
    import torch

    from pipeline.execution.index import open_pool
    from pipeline.execution.index_job import build_index
    from pipeline.execution.runner import prepare, run_stages
    from pipeline.recipe import parse_recipe

    cores = os.cpu_count() or 1
    gpus = int(torch.cuda.is_available())
    resources = {
        "actors": 1,
        "num_cpus": cores,
        "num_gpus": gpus,
        "threads": cores,
        "batch_size": 256 if gpus else BATCH,
    }
    stage = {"stage": "clip", "encoder": encoder, "draft": False, "resources": resources}
    recipe = parse_recipe({"name": "bench", "pool": {"tars": tars}, "stages": [stage]}, "bench")
    run = prepare(recipe, url)
    build_index(run, recipe.pool, open_pool(recipe.pool, url), print)
    (done,) = run_stages(run, recipe)
    if done.errors:
        sys.exit(f"{done.errors} images failed")
    return done.working, done.idle or 0.0


def compare(vectors: np.ndarray[Any, Any], url: str) -> float:
    """The least cosine between what the loop and the pipeline made of an image."""
    from manifests import open_run

    run = open_run(url)
    # The loop went through the tars in order, as does the index within each of them.
    order = run.index.scan(["id", "shard", "offset"]).sort("shard", "offset")
    stored = order.join(run.facts("clip"), on="id", maintain_order="left").collect()
    return float((stored["image_embedding"].to_numpy().astype(np.float32) * vectors).sum(1).min())


if __name__ == "__main__":
    main()
