"""The command: all works, all rounds, the comparison of what was found, and the results."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import machine

from peers import table
from peers.contender import Contender, Found, differences
from peers.measure import Measured, measure
from peers.trainer import training
from peers.works import WORKS, Place, Work

TRAINING = "training"
WARM = 50  # images
LIBRARIES = ("ray", "polars", "pyarrow", "pillow", "torch", "open_clip_torch", "transformers")


def main(about: str | None) -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*WORKS, TRAINING], help="these works; all by default")
    parser.add_argument("--rows", type=int, help="images, instead of each work's own number")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave these out, such as 'a loop'")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument(
        "--build", type=Path, default=Path("build/peers"), help="for what is made (default %(default)s)"
    )
    parser.add_argument("--environments", type=Path, help="of the peers (default BUILD/environments)")
    parser.add_argument("--install", action="store_true", help="make the environments, pools and weights only")
    parser.add_argument("--write", action="store_true", help="write the results and the table")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table of the stored results")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.write and (args.rows or args.without):
        parser.error("--write is for works at their own sizes, with all that do them")
    if args.table:
        write(table.stored() or {"works": []})
        return

    environments = args.environments or args.build / "environments"
    measured = {
        "date": datetime.date.today().isoformat(),
        "command": f"python benchmarks/peers/run.py{' --write' if args.write else ''}",
        "rounds": args.rounds,
        "machine": machine(LIBRARIES),
    }
    works: list[dict[str, Any]] = []
    for name in args.only or [*WORKS, TRAINING]:
        with ExitStack() as closing:
            place = Place(args.build, environments, closing)
            if args.install:
                if name != TRAINING:
                    WORKS[name].contenders(place, args.rows or WORKS[name].rows)
                continue
            done = training(args.rounds) if name == TRAINING else [run(WORKS[name], place, args)]
        works += [{**work, "measured": measured} for work in done]
        if args.write:  # after each work: the next one may fail
            write(table.merged(table.stored(), works))
    if not args.install:
        results = {"works": works}
        print(json.dumps(results, indent=2) if args.json else table.text(results))


def run(work: Work, place: Place, args: argparse.Namespace) -> dict[str, Any]:
    """All rounds of a work, over its own number of images unless another one is asked for."""
    rows = args.rows or work.rows
    warm, contenders = (without(args.without, work.contenders(place, number)) for number in (min(rows, WARM), rows))
    compare(work, {contender.name: attempt(contender, place)[1] for contender in warm})
    runs: dict[str, list[Any]] = {contender.name: [] for contender in contenders}
    found: dict[str, Found] = {}
    for number in range(args.rounds):
        for contender in contenders:
            print(f"{work.name}, round {number + 1}: {contender.name}", file=sys.stderr)
            measured, found[contender.name] = attempt(contender, place)
            runs[contender.name].append(asdict(measured))
        compare(work, found)  # in each round: a difference should not be found after the last one
    return {"work": work.name, "count": rows, "unit": "images", "runs": runs}


def without(names: Sequence[str], contenders: Sequence[Contender]) -> list[Contender]:
    """Return the contenders but for these. The first one stays: it is what the others are compared with."""
    others = [contender.name for contender in contenders[1:]]
    if unknown := sorted({*names} - {*others}):
        sys.exit(f"--without {unknown[0]!r}: it can leave out {', '.join(others)}")
    return [contender for contender in contenders if contender.name not in names]


def attempt(contender: Contender, place: Place) -> tuple[Measured, Found]:
    folder = place.build.absolute() / "attempt"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    measured = measure(contender.command(folder), folder, contender.environment)
    return measured, contender.found(folder)


def compare(work: Work, found: dict[str, Found]) -> None:
    """Stop if they did not do the same."""
    (name, first), *others = found.items()
    for other, theirs in others:
        if problem := differences(first, theirs, work.tolerance):
            sys.exit(f"{work.name}: {name} and {other}: {problem}")


def write(results: dict[str, Any]) -> None:
    """Write the results, and the table into its document."""
    table.RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    table.DOCUMENT.write_text(table.written(table.DOCUMENT.read_text(), results))


if __name__ == "__main__":
    main()
