"""The command line: how long it takes to say something, and to see that there is nothing to do.

Measured: the wall time of whole processes, from their start to their exit.

* `vl3syn --help`, median of 10. Target: ≤ 0.3 s.
* `vl3syn index` of a pool of 5,000 image files into a new run, then `vl3syn filter aspect-ratio` on it, median of 3.
  Targets: ≤ 6 s together, ≤ 2.5 s the filter.
* `vl3syn run RECIPE --run RUN` once more over that pool, with one stage (aspect ratio), median of 5. Target: ≤ 1.2 s.

    .venv/bin/python benchmarks/command_line.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SCRATCH, jpegs, machine, report, spread, verdict

VL3SYN = (sys.executable, "-m", "pipeline")
HELP_TARGET_S, BOTH_TARGET_S, FILTER_TARGET_S, RERUN_TARGET_S = 0.3, 6.0, 2.5, 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5_000, help="image files in the pool (default %(default)s)")
    parser.add_argument("--help-runs", type=int, default=10, help="runs of --help (default %(default)s)")
    parser.add_argument("--new-runs", type=int, default=3, help="new runs (default %(default)s)")
    parser.add_argument("--rerun-runs", type=int, default=5, help="runs of the re-run (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    results = {"machine": machine(), "files": args.files}
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        make_pool(Path(scratch, "pool"), args.files)
        recipe = Path(scratch, "recipe.yaml")
        pool = Path(scratch, "pool").absolute()
        recipe.write_text(f"name: rerun\npool: {{images: {pool}}}\nstages:\n  - stage: aspect_ratio\n")
        rerun = ("run", str(recipe), "--run", f"{scratch}/run", "--json")
        wall(*rerun)
        indexes, filters = [], []
        for number in range(args.new_runs):
            run = ("--run", f"{scratch}/new-{number}", "--json")
            indexes.append(wall("index", "--images", str(pool), *run)[0])
            filters.append(wall("filter", "aspect-ratio", "--max", "2", *run)[0])
        helps = [wall("--help")[0] for _ in range(args.help_runs)]
        reruns = [idle(*rerun, files=args.files) for _ in range(args.rerun_runs)]

    both = [index + filter_ for index, filter_ in zip(indexes, filters, strict=True)]
    results |= {"help_s": helps, "index_s": indexes, "filter_s": filters, "rerun_s": reruns}
    rows = [
        ("vl3syn --help", spread(helps), verdict(statistics.median(helps), HELP_TARGET_S)),
        (f"index of {args.files:,} files", spread(indexes), ""),
        ("filter aspect-ratio on them", spread(filters), verdict(statistics.median(filters), FILTER_TARGET_S)),
        ("both", spread(both), verdict(statistics.median(both), BOTH_TARGET_S)),
        (f"re-run over {args.files:,} files", spread(reruns), verdict(statistics.median(reruns), RERUN_TARGET_S)),
    ]
    report(results, ("command", "seconds (min to max)", "target"), rows, args.json)


def make_pool(folder: Path, files: int) -> None:
    """A folder of image files, 500 to a subfolder; a few distinct ones, many times."""
    encoded = jpegs(20, lambda text: print(text, file=sys.stderr))
    for number in range(files):
        file = folder / f"{number // 500:03d}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded[number % len(encoded)])


def wall(*arguments: str) -> tuple[float, str]:
    """Seconds and stdout of one command."""
    begin = time.perf_counter()
    done = subprocess.run([*VL3SYN, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"vl3syn {' '.join(arguments)} failed:\n{done.stderr}")
    return seconds, done.stdout


def idle(*arguments: str, files: int) -> float:
    """Seconds of a command that must find everything stored."""
    seconds, printed = wall(*arguments)
    jobs = json.loads(printed)["jobs"]
    if any(job["computed"] or job["stored"] != files for job in jobs):
        sys.exit(f"not a re-run with nothing to do: {jobs}")
    return seconds


if __name__ == "__main__":
    main()
