"""Publishing against a plain copy of the same bytes.

A pool of JPEGs of 20 to 60 kB in a folder, with captions that a server which answers at once has made. Measured,
medians of `--runs`, in turn, each into a new place, every copy synced to the disk at its end:

* `vl3syn publish`: MB of images per second, from the first row that a worker takes to the last shard that is there.
  Each image is read, hashed (SHA-256), compared with what was captioned, and written with its captions and scores. It
  is not decoded: the captions' stage has done so.
* the whole command, in seconds: it also starts Ray and its workers; before, the driver reads captions and scores
  (those of more than some 150,000 images are read by the workers, in the time above).
* one process that reads the files in their order and writes them into one file: the plainest copy there is.
* `cp -r` of the folder.

Target: publish ≥ 0.6 of the first copy.

    .venv/bin/python benchmarks/publish.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from captions import PORT, URL, VL3SYN, wait
from common import SCRATCH, jpegs, machine, report, spread

TARGET = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="images (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        folder = Path(scratch)
        megabytes = make_run(folder, args.images)
        in_turn = [(*publish(folder, run), append(folder, run), copy(folder, run)) for run in range(args.runs)]
        published, commands, appended, copied = zip(*in_turn, strict=True)

    rates = {name: [megabytes / s for s in seconds] for name, seconds in
             (("publish", published), ("append", appended), ("cp", copied))}  # fmt: skip
    ratio = statistics.median(rates["publish"]) / statistics.median(rates["append"])
    results = {"machine": machine(), "images": args.images, "megabytes": megabytes, "mb_per_s": rates, "ratio": ratio}
    results["command_seconds"] = commands
    met = "met" if ratio >= TARGET else "MISSED"
    rows = [
        (f"vl3syn publish, {args.images:,} images, {megabytes:,.0f} MB", spread(rates["publish"]), ""),
        ("all files read into one, one process", spread(rates["append"]), ""),
        ("cp -r", spread(rates["cp"]), ""),
        ("the whole command, seconds", spread(commands), ""),
        ("ratio to the files read into one", f"{ratio:.2f}", f"≥ {TARGET:g}: {met}"),
    ]
    report(results, ("what", "MB/s (or as said), median (min to max)", "target"), rows, args.json)


def make_run(folder: Path, images: int) -> float:
    """A pool, indexed and captioned; its megabytes."""
    pool = folder / "pool"
    pool.mkdir()
    encoded = jpegs(200, lambda text: print(text, file=sys.stderr))
    total = 0
    for number in range(images):
        data = encoded[number % len(encoded)] + str(number).encode()
        (pool / f"{number:06d}.jpg").write_bytes(data)
        total += len(data)
    server = subprocess.Popen([sys.executable, "-m", "tests.chat_server", "--port", str(PORT)])
    try:
        wait()
        vl3syn("index", "--images", str(pool.absolute()), "--run", str(folder / "run"))
        for use in ("short", "detailed"):
            vl3syn("caption", use, "--server", URL, "--run", str(folder / "run"))
    finally:
        server.terminate()
        server.wait()
    return total / 1e6


def vl3syn(*arguments: str) -> str:
    done = subprocess.run([*VL3SYN, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"vl3syn {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def publish(folder: Path, run: int) -> tuple[float, float]:
    """Seconds of the work on the images, and of the whole command."""
    out = folder / f"out{run}"
    begin = time.perf_counter()
    summary = json.loads(vl3syn("publish", "--run", str(folder / "run"), "--out", str(out), "--json"))
    whole = time.perf_counter() - begin
    if summary["left_out"] or summary["rows"] != summary["job"]["rows"]:
        sys.exit(f"not all images were published: {summary}")
    shutil.rmtree(out)
    return float(summary["job"]["working"]), whole


def append(folder: Path, run: int) -> float:
    files = sorted((folder / "pool").iterdir())
    target = folder / f"one{run}"
    os.sync()
    begin = time.perf_counter()
    with target.open("wb") as one:
        for file in files:
            one.write(file.read_bytes())
        one.flush()
        os.fsync(one.fileno())
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


def copy(folder: Path, run: int) -> float:
    target = folder / f"copy{run}"
    os.sync()  # what others have left to be written is not this copy's
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", folder / "pool", target], check=True)
    os.sync()
    seconds = time.perf_counter() - begin
    shutil.rmtree(target)
    return seconds


if __name__ == "__main__":
    main()
