"""What a caption costs beside the model: our client against a server that answers at once.

The server is tests/chat_server.py in a process of its own, on the same cores: it decodes each request (a JPEG of about
40 kB in base64) and answers. Measured, medians of `--runs`, in turn:

* the client alone, all images in one call: captions/s, and CPU time of our process per caption. Target: ≥ 500/s.
* the stage in the pipeline: `vl3syn caption short --server …` over a folder of the same images, one actor, from the
  first row that the worker takes to the last that is stored. It reads the files, decodes them (a tenth is not upright
  and encoded anew), writes each answer into the journal and measures it. Target: ≥ 600 images/s.

    .venv/bin/python benchmarks/captions.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import SCRATCH, jpegs, machine, reached, report, spread

from captioners.engines.base import Question, Sampling
from captioners.engines.http_exchange import FAILURES, get
from captioners.engines.openai_client import OpenAIClientConfig

CLIENT_TARGET, STAGE_TARGET = 500, 600  # per second
IMAGE_BYTES = 40_000
PORT = 18_437
URL = f"http://127.0.0.1:{PORT}/v1"
VL3SYN = (sys.executable, "-m", "pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=4_000, help="images (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="requests at once (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    images = jpegs(200, lambda text: print(text, file=sys.stderr), about=IMAGE_BYTES)
    images = [
        image + str(n).encode() for n, image in enumerate(images * (args.captions // len(images)))
    ]  # all distinct
    SCRATCH.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([sys.executable, "-m", "tests.chat_server", "--port", str(PORT)])
    try:
        wait()
        with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
            in_turn = [
                (client(images, args.concurrency), stage(images, args.concurrency, Path(scratch, str(run))))
                for run in range(args.runs)
            ]
        alone, whole = zip(*in_turn, strict=True)
    finally:
        server.terminate()
        server.wait()

    rates, cpu = [rate for rate, _ in alone], [1000 * seconds for _, seconds in alone]
    size = sum(map(len, images)) / len(images)
    results = {
        "machine": machine(),
        "captions": len(images),
        "bytes_per_image": size,
        "client_per_s": rates,
        "client_cpu_ms": cpu,
        "stage_per_s": whole,
    }
    rows = [
        (
            f"images of {size / 1000:.0f} kB: client alone, captions/s",
            spread(rates),
            reached(median(rates), CLIENT_TARGET),
        ),
        ("client alone, CPU of our process per caption, ms", spread(cpu), ""),
        ("vl3syn caption short, one actor, images/s", spread(whole), reached(median(whole), STAGE_TARGET)),
    ]
    report(results, ("what", "median (min to max)", "target"), rows, args.json)


def wait() -> None:
    for _ in range(100):
        try:
            get(f"{URL}/models", 5.0)
            return
        except FAILURES:
            time.sleep(0.1)
    sys.exit("the server does not start")


def client(images: list[bytes], concurrency: int) -> tuple[float, float]:
    """Captions per second, and CPU seconds of this process per caption."""
    engine = OpenAIClientConfig(url=URL, concurrency=concurrency).load(
        "m", "benchmark", None, Sampling(64, 0.0, 1.0, 0)
    )
    engine([Question(images[0], "warm up")])
    begin, cpu = time.perf_counter(), time.process_time()
    answers = engine([Question(image, "What is it?") for image in images])
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    if any(answer.error for answer in answers):
        sys.exit(f"an answer failed: {next(answer.error for answer in answers if answer.error)}")
    return len(images) / seconds, used / len(images)


def stage(images: list[bytes], concurrency: int, scratch: Path) -> float:
    """Images per second of the stage."""
    pool, run = scratch / "pool", scratch / "run"
    pool.mkdir(parents=True)
    for number, image in enumerate(images):
        (pool / f"{number:06d}.jpg").write_bytes(image)
    output = ""
    for command in (
        ("index", "--images", str(pool.absolute())),
        ("caption", "short", "--server", URL, "--concurrency", str(concurrency), "--json"),
    ):
        done = subprocess.run([*VL3SYN, *command, "--run", str(run)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        output = done.stdout
    job = json.loads(output)["jobs"][-1]
    if job["computed"] != len(images) or job["errors"]:
        sys.exit(f"not all images were captioned: {job}")
    return float(job["computed"] / job["working"])


if __name__ == "__main__":
    main()
