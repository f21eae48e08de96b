"""How near `vl3syn mix` comes: its numbers over those that a training then reported, stage by stage.

The recipe and the metrics.jsonl are those of a training that is done, such as the demo's. Target: samples, tokens and
steps within 2 %.

    make demo
    .venv/bin/python benchmarks/forecast.py demo/training
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from common import machine, report, verdict

from model.training.forecast import StageForecast, forecast
from model.training.metrics_log import read_metrics
from model.training.recipe import load_recipe
from model.training.source_sample import Measurer
from model.training.stage_plan import plan_stages

TARGET = 0.02
REPORTED = {"pieces": "samples", "tokens": "tokens", "learned": "labelled", "patches": "patches", "flops": "flops"}
"""Names of totals, and what metrics.jsonl calls them."""

AIMED = ("steps", "pieces", "tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", help="folder of a training that is done")
    parser.add_argument("--samples", type=int, nargs="*", default=[200, 1000], help="of each source")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    lines = [line for line in read_metrics(Path(args.training)) if line["kind"] == "step"]
    results: dict[str, Any] = {"machine": machine(("torch", "numpy")), "samples": {}}
    rows = []
    for samples in args.samples:
        begin = time.perf_counter()
        measurer = Measurer(1)
        stages = [
            forecast(plan, measurer, samples) for plan in plan_stages(load_recipe(Path(args.training) / "recipe.yaml"))
        ]
        measurer.close()
        seconds = time.perf_counter() - begin
        ratios = {stage.name: compare(stage, lines) for stage in stages}
        worst = max(abs(ratio[name] - 1) for ratio in ratios.values() for name in AIMED)
        results["samples"][samples] = {"seconds": seconds, "over": ratios, "worst": worst}
        rows += [
            (samples, name, *(f"{ratio.get(what, 1.0):.4f}" for what in ("steps", *REPORTED)))
            for name, ratio in ratios.items()
        ]
        rows.append(
            (samples, "worst of steps, samples, tokens", f"{worst:.4f}", verdict(worst, TARGET), "", "", "", "")
        )
    report(results, ("samples of a source", "stage", "steps", *REPORTED.values()), rows, args.json)


def compare(stage: StageForecast, lines: list[dict[str, Any]]) -> dict[str, float]:
    """The forecast over what was reported; of what did not occur there is none."""
    steps = [line for line in lines if line["stage"] == stage.name]
    ratios = {"steps": stage.steps.value / len(steps)}
    for name, key in REPORTED.items():
        if total := sum(line[key] for line in steps):
            ratios[name] = stage.totals[name].value / total
    return ratios


if __name__ == "__main__":
    main()
