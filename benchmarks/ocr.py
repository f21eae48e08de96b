"""Images/s of the stage `ocr` on one core, and how much of rendered text it finds.

Photographs are crops of the demo's (`make demo` gathers them), else generated; on every second one a line is drawn.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/ocr.py
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

from common import jpegs, machine, report
from PIL import Image, ImageDraw, ImageFont

WORDS = "open exit market street station bread coffee garden river museum north floor ticket bridge".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    from core.images import decode
    from filters.ocr import Ocr

    loaded = Ocr().load()
    pictures = [decode(data) for data in jpegs(args.images, lambda text: print(text, file=sys.stderr))]
    written = [with_line(picture, number) for number, picture in enumerate(pictures[1::2])]
    pictures[1::2] = [picture for picture, _ in written]
    wall, cpu = time.perf_counter(), time.process_time()
    rows = loaded([loaded.prepare(picture) for picture in pictures]).to_pylist()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    read = sum(
        text.replace(" ", "") in "".join(row["ocr_texts"]).replace(" ", "")
        for (_, text), row in zip(written, rows[1::2], strict=True)
    )
    results: dict[str, Any] = {"machine": machine(("rapidocr", "onnxruntime", "pillow")), "images": len(rows)}
    results |= {"images_per_second": len(rows) / wall, "cpu_seconds_per_image": cpu / len(rows)}
    results |= {"lines_read": read / max(len(written), 1)}
    table = [
        ("images/s", f"{results['images_per_second']:.2f}"),
        ("seconds of CPU per image", f"{results['cpu_seconds_per_image']:.2f}"),
        ("drawn lines that are read without a fault", f"{results['lines_read']:.0%} of {len(written)}"),
    ]
    report(results, (f"{len(rows)} images", ""), table, args.json)


def with_line(picture: Image.Image, seed: int) -> tuple[Image.Image, str]:
    """A copy with a line of three words on a plate, and the line."""
    text = " ".join(random.Random(seed).sample(WORDS, 3))
    font = ImageFont.load_default(max(16, picture.width // 25))
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    box = draw.textbbox((10, 10), text, font=font)
    draw.rectangle((box[0] - 6, box[1] - 6, box[2] + 6, box[3] + 6), fill="white")
    draw.text((10, 10), text, fill="black", font=font)
    return copy, text


if __name__ == "__main__":
    main()
