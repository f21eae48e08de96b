"""Which planted copies and questions of a benchmark `overlap` finds, what it finds wrongly, and how fast it is.

The photographs of the demo (`make demo` gathers them) are the benchmark. Changed copies of each are the data: those
of `planted_copies`, a tenth to a fifth of width and height cut off at random, half the size, and a larger picture of
which the benchmark has the crop.

* recall: the share of the copies that are found, as a copy of their own photograph. Target: ≥ 95 % for those of
  `planted_copies.PLANTED`, half the size, and crops;
* false: the share of the copies that are found as another photograph; those of one view or sequence count as right
  (`duplicates.alike`). Target: ≤ 1 %. Mirrored copies are not to be found;
* templates: pages of other words on one template, none of which may be found;
* texts: questions of 12 to 40 random words planted in turns of 60 words, 1 of 100 turns; rows/s on one thread, and the
  growth of memory from a tenth of the rows to all.

    .venv/bin/python benchmarks/overlap.py [--photographs FOLDER] [--rows N]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common import PHOTOGRAPHS, machine, peak_gib, report
from duplicates import alike
from PIL import Image, ImageDraw, ImageFont
from planted_copies import FURTHER, PLANTED, as_jpeg

from core.images import decode
from filters.overlap.copies import CopyIndex, CopyMatch, benchmark_image
from filters.overlap.texts import TextIndex

Change = Callable[[bytes], bytes]

_WORDS = "revenue market quarter team product launch customer budget forecast region sales margin plan audit".split()
_TEMPLATES = 24


def random_crop(dice: random.Random) -> Change:
    """Cut 10 to 20 % off the width and the height, shared at random between the two sides."""

    def change(data: bytes) -> bytes:
        image = decode(data)
        edges = []
        for length in image.size:
            total = dice.uniform(0.1, 0.2) * length
            before = dice.uniform(0, total)
            edges.append((round(before), round(length - (total - before))))
        (left, right), (top, bottom) = edges
        return as_jpeg(image.crop((left, top, right, bottom)), 85)

    return change


def half(data: bytes) -> bytes:
    image = decode(data)
    return as_jpeg(image.resize((max(1, image.width // 2), max(1, image.height // 2))), 80)


def template(seed: int) -> Image.Image:
    """A page with a bar, and six lines of random words."""
    dice, page = random.Random(seed), Image.new("RGB", (800, 600), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(26)
    draw.rectangle((0, 0, 800, 90), fill=(20, 60, 120))
    for line in range(6):
        draw.text((60, 130 + 70 * line), " ".join(dice.choices(_WORDS, k=4)), fill="black", font=font)
    return page


def index_of(encoded: Sequence[bytes]) -> CopyIndex:
    return CopyIndex([benchmark_image(row, data, decode(data)) for row, data in enumerate(encoded)])


def copies(names: Sequence[str], encoded: Sequence[bytes], say: Callable[[str], None]) -> dict[str, Any]:
    """Recall, false finds and milliseconds of CPU for each kind of copy."""
    index, crop = index_of(encoded), random_crop(random.Random(0))
    changes: dict[str, Change] = {**PLANTED, "half the size": half, "cropped by 10 to 20 %": crop, **FURTHER}
    results = {kind: _found(index, names, [change(data) for data in encoded]) for kind, change in changes.items()}
    say("copies done")
    smaller = index_of([crop(data) for data in encoded])
    results["of which the benchmark has a crop"] = _found(smaller, names, encoded)
    return results


def _found(index: CopyIndex, names: Sequence[str], encoded: Sequence[bytes]) -> dict[str, Any]:
    kinds, false, spent = Counter[str](), set[tuple[str, str]](), 0.0
    for row, data in enumerate(encoded):
        picture = decode(data, 128)
        begin = time.thread_time()
        matches: list[CopyMatch] = index.search(data, picture, decode)
        spent += time.thread_time() - begin
        kinds[next((match.kind for match in matches if match.row == row), "missed")] += 1
        false |= {(names[row], names[m.row]) for m in matches if not alike(names[row], names[m.row])}
    return {
        "recall": 1 - kinds["missed"] / len(encoded),
        "kinds": dict(kinds),
        "false": len({name for name, _ in false}) / len(encoded),
        "false_pairs": sorted(false),
        "milliseconds": 1000 * spent / len(encoded),
    }


def templates() -> dict[str, int]:
    """How many pages of other words are found, and how many of the same words."""
    index = index_of([as_jpeg(template(seed), 95) for seed in range(_TEMPLATES)])

    def found(seeds: Sequence[int]) -> int:
        pages = [as_jpeg(template(seed), 60) for seed in seeds]
        return sum(bool(index.search(page, decode(page, 128), decode)) for page in pages)

    return {"same words": found(range(_TEMPLATES)), "other words": found(range(100, 100 + _TEMPLATES))}


def texts(rows: int) -> dict[str, Any]:
    """Questions found in turns of random words, rows/s, and memory."""
    dice = random.Random(0)
    vocabulary = [f"{a}{b}" for a in "bcdfghjklm" for b in (f"{n}o" for n in range(500))]
    questions = [" ".join(dice.choices(vocabulary, k=dice.randint(12, 40))) for _ in range(5000)]
    index = TextIndex([[question] for question in questions])

    def turns() -> Iterator[tuple[int | None, str]]:
        for number in range(rows):
            planted = dice.randrange(len(questions)) if number % 100 == 0 else None
            inside = [] if planted is None else [questions[planted]]
            yield planted, " ".join([*dice.choices(vocabulary, k=30), *inside, *dice.choices(vocabulary, k=30)])

    right = wrong = 0
    spent, early = 0.0, 0.0
    for number, (planted, text) in enumerate(turns()):
        begin = time.thread_time()
        matches = {match.row for match in index.search([text]).matches}
        spent += time.thread_time() - begin
        right += planted in matches
        wrong += len(matches - {planted})
        early = peak_gib() if number == rows // 10 else early
    return {
        "recall": right / len(range(0, rows, 100)),
        "wrong": wrong,
        "rows_per_second": rows / spent,
        "memory_growth_mib": 1024 * (peak_gib() - early),
    }


def _line(kind: str, result: dict[str, Any]) -> tuple[str, ...]:
    kinds = ", ".join(f"{count} {name}" for name, count in result["kinds"].items())
    return kind, f"{result['recall']:.1%}", kinds, f"{result['false']:.1%}", f"{result['milliseconds']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, help="default: those of the demo")
    parser.add_argument("--rows", type=int, default=100_000, help="turns to search for texts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    files = sorted(p for p in args.photographs.glob("*") if p.suffix in (".jpg", ".png"))
    if not files:
        sys.exit(f"{args.photographs} is empty: `make demo` gathers the photographs")
    found = copies([f.name for f in files], [f.read_bytes() for f in files], lambda text: print(text, file=sys.stderr))
    results = {"machine": machine(), "photographs": len(files), "copies": found}
    results |= {"templates": templates(), "texts": texts(args.rows)}
    lines = [_line(kind, result) for kind, result in found.items()]
    report(results, ("copy", "recall", "as", "false", "CPU ms"), lines, args.json)
    if not args.json:
        for kind, r in found.items():
            for pair in r["false_pairs"]:
                print(f"  {kind}: {pair[0]} found as {pair[1]}")
        print(f"templates found, of {_TEMPLATES}: {results['templates']}")
        print("texts: " + ", ".join(f"{name} {value:,.4g}" for name, value in results["texts"].items()))


if __name__ == "__main__":
    main()
