"""Our trainer and transformers' class on the same samples: what benchmarks/training.py measures, as works."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "training.py"
NAMES = {
    "packed": "vl3syn: packed",
    "padded": "transformers' class, padded",
    "grouped": "transformers' class, grouped by length",
}
SIZES = {"tiny": "preset `tiny`", "30m": "30 M parameters", "vocabulary": "20 M, a vocabulary of 151,936"}


def training(rounds: int) -> Iterator[dict[str, Any]]:
    """Run it, and yield a work for each size of the model."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--json", "--repeat", str(rounds)], stdout=subprocess.PIPE, text=True, check=True
    )
    measured = json.loads(done.stdout)
    for size, name in SIZES.items():
        ways = measured[size]
        yield {
            "work": f"training, {name}",
            "count": ways["packed"][0]["result"]["useful"],
            "unit": "useful tokens",
            "runs": {NAMES[way]: [_numbers(one) for one in runs] for way, runs in ways.items()},
        }


def _numbers(one: dict[str, Any]) -> dict[str, float]:
    return {name: one[name] for name in ("seconds", "core_seconds", "mib")}
