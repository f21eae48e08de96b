"""How full packed rows are: tokens of samples by tokens of the budget, on the mixture of mixture.py.

Rows of 4,096 and of 16,384 tokens, made

* by one packer of 8 open rows, and for comparison of 1 and of 64;
* as the loader makes them: 8 virtual ranks, each with every eighth sample and a packer of its own.

What counts is the long run: rows until the samples end. The end of a stage adds the rows that are open by then, up to 8
or 64 of them, half empty; but a row that is not full costs no time, for nothing is padded. Samples that are open when
a training stops are read again when it goes on. Beside it, batches of 8 padded to their longest, at random, and grouped
by length among 400. Target: fill ≥ 0.98 in the long run.

    .venv/bin/python benchmarks/packing.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from common import machine, reached
from mixture import Drawn, draw
from turns import markdown

from model.training.data.packing import Packer, Row
from model.training.data.virtual_rank import VirtualRank
from model.training.recipe import Stage

TARGET = 0.98
BUDGETS = (4096, 16384)
LANES, OPEN = 8, 8
Rows = list[Row[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000, help="samples of each draw (default %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="seeds (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    drawn = [draw(args.samples, seed) for seed in range(args.draws)]
    results: dict[str, Any] = {"machine": machine(()), "mixture": described(drawn), "fill": {}, "padded": padded(drawn)}
    for budget in BUDGETS:
        for way in (*(f"one packer of {rows}" for rows in (1, OPEN, 64)), f"{LANES} lanes of {OPEN}"):
            results["fill"][f"{budget} {way}"] = [measure(budget, way, samples) for samples in drawn]
    if args.json:
        print(json.dumps(results, indent=2))
        return
    columns = ("tokens", "open rows", "fill in the long run", "target", "and at the end", "open samples", "µs a sample")
    print(f"{results['machine']}\n{results['mixture']}\n")
    print(markdown(columns, [row(*one) for one in results["fill"].items()]))
    others = ", ".join(f"{way} {value:.3f}" for way, value in results["padded"].items())
    print(f"\nBatches of 8 padded to their longest: {others}")


def measure(budget: int, way: str, samples: Sequence[Drawn]) -> dict[str, float]:
    """The fill of rows until the samples end, and of all; samples that were open then; time."""
    limits = Stage(name="any", learning_rates={}, mixture={"any": 1}, steps=1, tokens=budget)
    begin = time.perf_counter()
    if way.startswith("one"):
        done, last = by_packer(Packer(budget, limits.patch_budget, int(way.split()[-1])), samples)
    else:
        done, last = by_lanes(budget, limits.patch_budget, samples)
    seconds = time.perf_counter() - begin
    packed = sum(len(row.samples) for row in done + last)
    assert packed == len(samples), f"{packed} of {len(samples)} samples"
    return {
        "steady": packing_efficiency(done, budget),
        "whole": packing_efficiency(done + last, budget),
        "open": sum(len(row.samples) for row in last),
        "microseconds": seconds / len(samples) * 1e6,
    }


def packing_efficiency(rows: Rows, budget: int) -> float:
    return sum(row.tokens for row in rows) / (len(rows) * budget)


def by_packer(packer: Packer[Drawn], samples: Sequence[Drawn]) -> tuple[Rows, Rows]:
    done = [row for sample in samples if (row := packer.add(sample))]
    return done, list(packer.flush())


def by_lanes(tokens: int, patches: int, samples: Sequence[Drawn]) -> tuple[Rows, Rows]:
    """As `Loader` does: a row of each lane in turn, until no lane has any."""

    def submit(index: int) -> Future[list[Any]]:
        future: Future[list[Any]] = Future()
        future.set_result([samples[index]])
        return future

    lanes = [VirtualRank(n, LANES, len(samples), Packer(tokens, patches, OPEN), submit) for n in range(LANES)]
    done: Rows = []
    last: Rows = []
    while True:
        rows = [(lane, row) for lane in lanes if (row := lane.next_row(lambda error: None))]
        for lane, row in rows:
            (last if lane.number + lane.cursor * LANES >= len(samples) else done).append(row)
        if not rows:
            return done, last


def padded(drawn: Sequence[Sequence[Drawn]]) -> dict[str, float]:
    """The fill of padded batches of 8."""
    ways: dict[str, list[float]] = {"at random": [], "grouped by length": []}
    for samples in drawn:
        lengths = [sample.tokens for sample in samples]
        ways["at random"].append(_padded(lengths))
        groups = [sorted(lengths[at : at + 400]) for at in range(0, len(lengths), 400)]
        ways["grouped by length"].append(_padded([length for group in groups for length in group]))
    return {way: statistics.median(fills) for way, fills in ways.items()}


def _padded(lengths: Sequence[int]) -> float:
    return sum(lengths) / sum(8 * max(lengths[at : at + 8]) for at in range(0, len(lengths), 8))


def described(drawn: Sequence[Sequence[Drawn]]) -> str:
    lengths = sorted(sample.tokens for samples in drawn for sample in samples)
    share = {quantile: lengths[int(quantile * len(lengths))] for quantile in (0.1, 0.5, 0.9, 0.99)}
    shares = ", ".join(f"{quantile:.0%} within {length:,}" for quantile, length in share.items())
    counted = f"{len(drawn)} x {len(drawn[0]):,} samples"
    return f"{counted}: mean {statistics.mean(lengths):,.0f} tokens, {shares}, at most {lengths[-1]:,}"


def row(name: str, runs: Sequence[dict[str, float]]) -> tuple[str, ...]:
    budget, way = name.split(" ", 1)
    steady, whole = ([one[key] for one in runs] for key in ("steady", "whole"))
    return (
        f"{int(budget):,}",
        way,
        f"{statistics.median(steady):.4f} ({min(steady):.4f} to {max(steady):.4f})",
        reached(min(steady), TARGET) if way.endswith(f"of {OPEN}") else "",
        f"{statistics.median(whole):.4f}",
        f"{statistics.median(one['open'] for one in runs):.0f}",
        f"{statistics.median(one['microseconds'] for one in runs):.1f}",
    )


if __name__ == "__main__":
    main()
