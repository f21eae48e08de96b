"""`vl3syn import`: rows per second, and the memory that a JSON array takes.

Measured: an import of a generated array in LLaVA's form, by the command, in a process of its own: rows per second
of the import and the largest memory of the process. A small and a large array; memory must not grow with the file.

* Largest memory with the large array against the small one. Target: ≤ 1.25 times.
* Rows per second: no target.

    .venv/bin/python benchmarks/imports.py                        # 0.1 GB and 1 GB: some minutes
    .venv/bin/python benchmarks/imports.py --small 10 --large 100
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SCRATCH, machine, report, verdict

TARGET = 1.25
_PEAK = """
import resource, sys
from pipeline.commands.app import app
try:
    app(sys.argv[1:])
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak {peak}", file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=100, help="MB of the small array (default %(default)s)")
    parser.add_argument("--large", type=int, default=1_000, help="MB of the large array (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    SCRATCH.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(("pydantic",)), "imports": []}
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        for megabytes in (args.small, args.large):
            results["imports"].append(measure(Path(scratch), megabytes))
    small, large = results["imports"]
    growth = large["peak_mib"] / small["peak_mib"]
    rows = [
        (
            f"array of {each['megabytes']:,} MB, {each['rows']:,} rows",
            f"{each['rows_per_s']:,.0f} rows/s",
            f"{each['peak_mib']:,.0f} MiB",
            "",
        )
        for each in (small, large)
    ]
    rows.append(("memory, large against small", "", f"{growth:.2f} times", verdict(growth, TARGET)))
    report(results | {"growth": growth}, ("import", "speed", "largest memory", "target"), rows, args.json)


def measure(scratch: Path, megabytes: int) -> dict[str, float]:
    """Import an array of about so many megabytes."""
    file = scratch / f"set-{megabytes}.json"
    rows = generate(file, megabytes * 10**6)
    out = scratch / f"out-{megabytes}"
    begin = time.perf_counter()
    command = [sys.executable, "-c", _PEAK, "import", "llava", str(file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    counted = json.loads((out / "import.json").read_text())
    assert counted["rows"] == {"in": rows, "out": rows, "rejected": 0, "limited": False}, counted["rows"]
    peak = int(done.stderr.rsplit("peak ", 1)[1])
    return {"megabytes": megabytes, "rows": rows, "rows_per_s": rows / seconds, "peak_mib": peak / 2**20}


def generate(file: Path, size: int) -> int:
    """Write an array of LLaVA's entries of `size` bytes; return their number."""
    number = written = 0
    with open(file, "w") as out:
        out.write("[")
        while written < size:
            turns = []
            for turn in range(number % 3 + 1):
                mark = "<image>\n" if not turn else ""
                question = f"{mark}What is the object number {number} on the left side of the picture?"
                answer = f"It is object {number}, which stands beside the others. " * (turn + 2)
                turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            entry = {"id": f"{number:012d}", "image": f"coco/train2017/{number:012d}.jpg", "conversations": turns}
            text = json.dumps(entry)
            written += out.write(f",\n{text}" if number else text)
            number += 1
        out.write("]")
    return number


if __name__ == "__main__":
    main()
