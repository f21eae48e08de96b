"""How far decoding a JPEG at a reduced scale moves what a model sees, and what it saves.

Photographs of the demo (`make demo` gathers them) are enlarged to 2048 pixels where they are smaller, encoded as JPEG
of quality 90, and decoded twice: every pixel, and at the scale that `clip` asks for (never below twice the model's
side). Compared are the model's input after open_clip's own resize and crop (mean absolute difference of a channel, of
255), the embeddings of CLIP's ViT-B/32 with random weights, and those of EfficientNet-Lite0 with its real ones
(`conse`, whose 1000 probabilities magnify small changes). Real CLIP weights are on the hub: `--encoder` takes them.

The worst cases are images whose size is odd: the reduced image is rounded up, so that the crop may lie one pixel of the
model's 224 further left or up.

    .venv/bin/python benchmarks/draft.py
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from clip_throughput import checkpoint
from common import PHOTOGRAPHS, machine, report
from PIL import Image

SIDE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="a CLIP (default: ViT-B/32's architecture with random weights)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    from filters.clip import Clip
    from filters.conse import Conse

    photos = [large(path) for path in sorted(PHOTOGRAPHS.iterdir())]
    results: dict[str, Any] = {"machine": machine(), "photographs": len(photos)}
    clip = Clip(encoder=args.encoder or checkpoint("ViT-B-32")).load()
    results["clip"] = compare(clip, photos)
    results["conse"] = compare(Conse().load(), photos)
    columns = ("model", "decoded whole, ms", "small, ms", "mean |Δ| of 255: median, worst", "cosine: median, worst")
    report(results, columns, [(name, *line(results[name])) for name in ("clip", "conse")], args.json)


def large(path: Any) -> bytes:
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    scale = max(1.0, SIDE / max(photo.size))
    data = io.BytesIO()
    photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS).save(
        data, "JPEG", quality=90
    )
    return data.getvalue()


def compare(facts: Any, photos: Sequence[bytes]) -> dict[str, list[float]]:
    from manifests.embeddings import to_matrix

    whole, whole_s = prepared(facts, photos, None)
    small, small_s = prepared(facts, photos, facts.side)
    difference = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(whole, small, strict=True)]
    (one, _), (other, _) = (to_matrix(embed(facts, images)) for images in (whole, small))
    return {"whole_s": whole_s, "small_s": small_s, "difference": difference, "cosine": (one * other).sum(1).tolist()}


def embed(facts: Any, images: list[Any]) -> Any:
    import pyarrow as pa

    batches = [facts(images[start : start + 16]).select(["image_embedding"]) for start in range(0, len(images), 16)]
    return pa.concat_tables(batches)["image_embedding"]


def prepared(facts: Any, photos: Sequence[bytes], side: int | None) -> tuple[list[Any], list[float]]:
    from core.images import decode

    images, seconds = [], []
    for data in photos:
        begin = time.perf_counter()
        images.append(facts.prepare(decode(data, side)))
        seconds.append(time.perf_counter() - begin)
    return images, seconds


def line(results: dict[str, list[float]]) -> tuple[str, ...]:
    difference, cosine = results["difference"], results["cosine"]
    return (
        f"{statistics.median(results['whole_s']) * 1e3:.1f}",
        f"{statistics.median(results['small_s']) * 1e3:.1f}",
        f"{statistics.median(difference):.2f}, {max(difference):.2f}",
        f"{statistics.median(cosine):.5f}, {min(cosine):.5f}",
    )


if __name__ == "__main__":
    main()
