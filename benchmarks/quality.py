"""How often a worse copy of a photograph gets a lower `quality`, over the demo's photographs, and what it costs.

Each photograph (`make demo` gathers them) is scored as it is and after one degradation: Gaussian blur of radius 3 at
the scale of 640 pixels, brightness × 1.8 and × 2 clipped (over-exposed), and JPEG of quality 10. Counted are the pairs
in which the copy scores below. Target: 90 % of each.

    .venv/bin/python benchmarks/quality.py
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

from common import PHOTOGRAPHS, machine, report
from PIL import Image, ImageEnhance, ImageFilter

TARGET = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    from core.images import decode
    from filters.quality import Quality

    facts = Quality().load()
    photos = [decode(path.read_bytes()) for path in sorted(PHOTOGRAPHS.iterdir())]
    begin = time.perf_counter()
    originals = facts([facts.prepare(photo) for photo in photos])["quality"].to_pylist()
    results: dict[str, Any] = {"machine": machine(), "photographs": len(photos)}
    results["ms_per_photograph"] = (time.perf_counter() - begin) * 1e3 / len(photos)
    rows = []
    for name, degrade in DEGRADATIONS.items():
        copies = facts([facts.prepare(degrade(photo)) for photo in photos])["quality"].to_pylist()
        lower = sum(copy < original for copy, original in zip(copies, originals, strict=True)) / len(photos)
        results[name] = lower
        rows.append((name, f"{lower:.1%}", f"{statistics.median(copies):.2f}", "met" if lower >= TARGET else "MISSED"))
    rows.append(("as it is", "", f"{statistics.median(originals):.2f}", ""))
    report(results, ("photograph", "scores below its original", "median score", "≥ 90 %"), rows, args.json)
    if not args.json:
        print(f"{len(photos)} photographs, {results['ms_per_photograph']:.1f} ms each without decoding")


def blurred(photo: Image.Image) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(3 * max(photo.size) / 640))


def brighter(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda photo: ImageEnhance.Brightness(photo).enhance(factor)


def compressed(photo: Image.Image) -> Image.Image:
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=10)
    return Image.open(data).convert("RGB")


DEGRADATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": blurred,
    "brightness × 1.8": brighter(1.8),
    "brightness × 2": brighter(2),
    "JPEG of quality 10": compressed,
}


if __name__ == "__main__":
    main()
