"""What each rule finds of the defects that it is for: defects are planted among photographs, and each rule is judged.

The pool are pieces of the demo's photographs (recipes/demo_pool.py gathers them), some of them blurred, compressed too
much, stretched, tiny, with a wrong or an empty alt text, and copies of others; beside them rendered text, and drawings
that open_nsfw takes for unsafe. `vl3syn run` computes the facts of all rows (planted.yaml, without its rules). Then
each rule is judged by itself on all rows: which share of what it is for does it drop, and which share of what it drops
has a defect that it is for. Shares have 95 % intervals (Wilson 1927).

    .venv/bin/python benchmarks/evidence/planted.py             # measure, print the tables
    .venv/bin/python benchmarks/evidence/planted.py --write     # and write planted.json, docs/evidence.md, its picture
    .venv/bin/python benchmarks/evidence/planted.py --table     # write docs/evidence.md of planted.json again
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

RECIPE = Path(__file__).with_suffix(".yaml")
LIBRARIES = ("ray", "polars", "pillow", "torch", "onnxruntime", "rapidocr", "ImageHash")


def main() -> None:
    from evidence import planted_table as table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sound", type=int, default=400, help="pieces without a defect (default %(default)s)")
    parser.add_argument("--each", type=int, default=30, help="rows of each kind of defect (default %(default)s)")
    parser.add_argument("--drawn", type=int, default=10, help="drawings, at most (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all choices (default %(default)s)")
    parser.add_argument(
        "--build", type=Path, default=Path("build/planted"), help="for pool and run; what is there is used again"
    )
    parser.add_argument("--without", nargs="+", default=[], metavar="STAGE", help="`ocr` takes most of the time")
    parser.add_argument("--write", action="store_true", help="write the results, the page and its picture")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the page of the stored results")
    args = parser.parse_args()
    if args.table:
        table.write(table.stored())
        return
    results = measure(args.build, args.sound, args.each, args.drawn, args.seed, args.without)
    if args.write:
        table.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        table.write(results)
    print(table.text(results))


def measure(build: Path, sound: int, each: int, drawn: int, seed: int, without: Sequence[str]) -> dict[str, Any]:
    """Make the pool unless it is there, compute its facts, and judge the rules."""
    from common import machine

    from evidence.planted_rules import judge

    folder = build / f"{sound}-{each}-{drawn}-{seed}"
    if not (folder / "planted.json").is_file():
        make_pool(folder, sound, each, drawn, seed)
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in without]
    run = compute(facts_recipe(recipe, folder / "pool.parquet"), folder)
    sizes = {"sound": sound, "each": each, "drawn": drawn, "seed": seed}
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python benchmarks/evidence/planted.py", *sys.argv[1:]]),
        "machine": machine(LIBRARIES),
        "sizes": sizes,
        **judge(recipe, run, folder / "planted.json"),
    }


def make_pool(folder: Path, sound: int, each: int, drawn: int, seed: int) -> None:
    from common import PHOTOGRAPHS

    from evidence import planted_models, planted_pool

    files = planted_pool.distinct(sorted(p for p in PHOTOGRAPHS.glob("*") if p.suffix in (".jpg", ".png")))
    if not files:
        sys.exit(f"{PHOTOGRAPHS} is empty: `python recipes/demo_pool.py demo/pool` gathers the photographs")
    print("alt texts by ConSE", file=sys.stderr)
    texts = planted_models.alt_texts(files)
    print("drawings by open_nsfw", file=sys.stderr)
    drawings = planted_models.unsafe_drawings(drawn, seed)
    stock = list(planted_pool.pieces(files, texts))
    planted_pool.make(folder, stock, sound, each, drawings, seed)


def facts_recipe(recipe: Mapping[str, Any], pool: Path) -> dict[str, Any]:
    """Return the recipe for this pool without a rule, so that all rows get all facts."""
    stages = [{**stage, "keep": {}} for stage in recipe["stages"]]
    return {**recipe, "pool": {**recipe["pool"], "parquet": str(pool)}, "stages": stages}


def compute(facts: dict[str, Any], folder: Path) -> Path:
    """Run a recipe by the command line into a folder; the run. What is stored there is not computed again."""
    (folder / "facts.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
    command = [sys.executable, "-m", "pipeline", "run", str(folder / "facts.yaml"), "--run", str(folder / "run")]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "run"


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # where the package `evidence` is, and what the benchmarks share
    main()
