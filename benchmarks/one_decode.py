"""What it would bring if image stages that follow one another shared one decode of each image.

CPU milliseconds an image, in one process: decoding as each stage asks for it, the rest of its work, and decoding once
for all stages. A stage's facts must not depend on its neighbours, and a JPEG that is decoded at a reduced scale has
other pixels than one that is scaled down. So one decode serves those stages whose `side` leads to the same scale.

    .venv/bin/python benchmarks/one_decode.py
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import jpegs, machine, report
from PIL import Image

from captioners.offline.describe import Describe
from core.errors import BadSampleError
from core.images import decode
from core.stages import ImageFacts, ImageStage
from filters.conse import Conse
from filters.hashes import Hashes
from filters.nsfw import Nsfw
from filters.quality import Quality

POOL = Path("demo/pool")
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="crops of photographs (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    stages = [(stage, stage.load()) for stage in (Quality(), Nsfw(), Hashes(), Conse(), Describe())]
    sets = {f"{args.images:,} crops, JPEG": jpegs(args.images, lambda text: print(text, file=sys.stderr))}
    if demo := [path.read_bytes() for path in sorted(POOL.rglob("*")) if path.is_file()]:
        sets[f"the demo's {len(demo)} files"] = demo
    results: dict[str, Any] = {"machine": machine()}
    for name, images in sets.items():
        results[name] = {stage.name: costs(stage, facts, images) for stage, facts in stages}
        results[name]["shared"] = (shared([facts.side for _, facts in stages], images), 0.0)
    report(results, ("images", "stage", "decode", "the rest"), rows(results), args.json)


def rows(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, costs_ in results.items():
        if name == "machine":
            continue
        for stage, (decoding, rest) in costs_.items():
            yield name, stage, f"{decoding:.2f}", f"{rest:.2f}"
        *stages, (once, _) = costs_.values()
        rest = sum(rest for _, rest in stages)
        today = sum(decoding for decoding, _ in stages) + rest
        yield name, "all", f"{today:.1f} today, {once + rest:.1f} with shared decodes", f"× {(once + rest) / today:.2f}"


def costs(stage: ImageStage, facts: ImageFacts, images: list[bytes]) -> tuple[float, float]:
    """CPU milliseconds an image: to decode it, and for everything else that the stage does."""
    decoding, inputs, begin = 0.0, [], time.process_time()
    for data in images:
        before = time.process_time()
        try:
            values = {
                "image": decode(data, facts.side),
                "encoded": data,
                "labels": ["cat"],
                "label_probabilities": [0.7],
            }
            decoding += time.process_time() - before
            inputs.append(facts.prepare(*(values[name] for name in stage.reads)))
        except BadSampleError:
            continue
    for start in range(0, len(inputs), BATCH):
        facts(inputs[start : start + BATCH])
    seconds = time.process_time() - begin
    return 1000 * decoding / len(images), 1000 * (seconds - decoding) / len(images)


def shared(sides: list[int | None], images: list[bytes]) -> float:
    """CPU milliseconds an image to decode it once for each scale that stages with these sides need."""
    begin = time.process_time()
    for data in images:
        scales = {size_at(data, side): side for side in sides}
        for side in scales.values():
            try:
                decode(data, side)
            except BadSampleError:
                continue
    return 1000 * (time.process_time() - begin) / len(images)


def size_at(data: bytes, side: int | None) -> tuple[int, int] | None:
    """Width and height of what `decode` makes of an image, without decoding it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG" and side is not None:
                image.draft(None, (side, side))
            return image.size
    except Exception:  # not an image
        return None


if __name__ == "__main__":
    main()
