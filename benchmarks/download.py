"""The stage `download` against bare img2dataset: images/s, CPU per image, and memory, from one server on loopback.

One worker of ours (what it does for a part: fetch, hash, read headers, store tar and facts) against one process of
img2dataset 1.47.0, with the same settings: 64 threads, parts of 2,048 URLs, SHA-256, no resizing. They take turns. The
server is a process of its own, and its CPU time counts for nobody. Speed and CPU per image are those of `--urls` images
beyond those of a first part, so what a job costs once is left out: the start of processes and, of ours, the end of the
last part, while nothing is fetched. "all" is the speed from the start of the first part to the end of the last one.
What is written is synced before a measurement begins; ours syncs its tars within it.

Targets: images/s ≥ 0.95 of img2dataset's, and a peak of memory after `--memory-urls` URLs ≤ 1.1 of that after a quarter
of them.

    .venv/bin/python benchmarks/download.py
    .venv/bin/python benchmarks/download.py --memory-urls 100000 --sizes 20
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import socketserver
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import SCRATCH, machine, reached, report, spread, verdict

TARGET_SPEED, TARGET_MEMORY = 0.95, 1.1
HERE = Path(__file__).parents[1]
FOLDER = SCRATCH / "download"
THREADS, PART = 64, 2048

_BARE = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(
        url_list=sys.argv[1], input_format="parquet", output_folder=sys.argv[2], output_format="webdataset",
        processes_count=1, thread_count=int(sys.argv[3]), number_sample_per_shard=int(sys.argv[4]),
        resize_mode="no", disable_all_reencoding=True, compute_hash="sha256", extract_exif=False,
        timeout=20, retries=0, max_shard_retry=0,
    )
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--urls", type=int, default=10_240, help="URLs per measurement, at least 4,096 (default %(default)s)"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 300], help="kB per image (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default %(default)s)")
    parser.add_argument("--memory-urls", type=int, default=20_480, help="URLs for the memory (default %(default)s)")
    parser.add_argument("--python", help="Python with img2dataset; default: that of `make setup-download`")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=("serve", "ours"), help="do this in this process")
    parser.add_argument("--list", type=Path, help="for --only ours: the list")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from pipeline.stages.download.child_process import find_python

    python = find_python(args.python)
    if args.only == "serve":
        serve(args.sizes)
        return
    if args.only == "ours":
        print(json.dumps(ours(args.list, python)))
        return

    results: dict[str, Any] = {"machine": machine(("polars", "pyarrow")), "urls": args.urls, "measured": {}}
    FOLDER.mkdir(parents=True, exist_ok=True)
    with server(args.sizes) as port:
        for size in args.sizes:
            measured: dict[str, list[dict[str, float]]] = {"ours": [], "img2dataset": []}
            for _ in range(args.repeat):
                for who, of in measured.items():
                    few, many = (run(who, size, urls, port, python) for urls in (PART, args.urls))
                    seconds, cpu_seconds = (many[name] - few[name] for name in ("seconds", "cpu"))
                    more = args.urls - PART
                    of.append(many | {"cpu": cpu_seconds / more, "rate": more / seconds})
            results["measured"][size] = measured
        counts = (args.memory_urls // 4, args.memory_urls)
        results["peaks"] = {count: run("ours", args.sizes[0], count, port, python) for count in counts}
    shutil.rmtree(FOLDER)
    report(results, ("what", "ours (min to max)", "img2dataset", "ours / img2dataset"), table_of(results), args.json)


def table_of(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for size, measured in results["measured"].items():
        for name, factor, unit in (("rate", 1, "images/s"), ("speed", 1, "all"), ("cpu", 1000, "CPU ms per image")):
            values = {who: [run[name] * factor for run in runs] for who, runs in measured.items()}
            ratio = statistics.median(values["ours"]) / statistics.median(values["img2dataset"])
            met = f", {reached(ratio, TARGET_SPEED)}" if name == "rate" else ""
            cells = spread(values["ours"]), spread(values["img2dataset"]), f"{ratio:.2f}{met}"
            yield (f"{size} kB: {unit}", *cells)
    for name in ("worker", "child"):
        peaks = [run[name] for run in results["peaks"].values()]
        few, many = (f"{count:,} URLs {peak:.0f}" for count, peak in zip(results["peaks"], peaks, strict=True))
        yield f"peak MiB of the {name}", f"{few}, {many}", "", verdict(peaks[1] / peaks[0], TARGET_MEMORY)


def run(who: str, size: int, urls: int, port: int, python: str) -> dict[str, float]:
    """Download a list in a new process; return images/s, CPU seconds and, for ours, peaks of memory in MiB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, out = FOLDER / "list.parquet", FOLDER / "out"
    shutil.rmtree(out, ignore_errors=True)
    pq.write_table(pa.table({"url": [f"http://127.0.0.1:{port}/{size}/{number}" for number in range(urls)]}), rows)
    os.sync()
    before = cpu()
    if who == "ours":
        command = [sys.executable, __file__, "--only", "ours", "--list", str(rows), "--python", python]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
    else:
        script = FOLDER / "bare.py"
        script.write_text(_BARE)
        command = [python, str(script), str(rows), str(out), str(THREADS), str(PART)]
        subprocess.run(command, check=True, capture_output=True)
        shards = [json.loads(path.read_text()) for path in out.glob("*_stats.json")]
        seconds = max(shard["end_time"] for shard in shards) - min(shard["start_time"] for shard in shards)
        found = {"images": sum(shard["successes"] for shard in shards), "seconds": seconds}
    assert found["images"] == urls, f"{who} stored {found['images']} images of {urls}"
    return found | {"cpu": cpu() - before, "speed": urls / found["seconds"]}


def ours(rows: Path, python: str) -> dict[str, float]:
    """Do what a worker of the stage does for each part of a list."""
    import pyarrow.parquet as pq

    from manifests.schemas import table_schema
    from manifests.storage import Folder
    from manifests.tables import Table
    from pipeline.stages.download.stage import Download
    from pipeline.stages.download.storage import TarStore

    urls = pq.read_table(rows)
    settings = {"engine": {"python": python}, "allow": ["127.0.0.1"], "per_host": THREADS, "concurrency": THREADS}
    stage = Download.model_validate(settings)
    out = Folder.at(str(FOLDER / "out"))
    table = Table(out.join("table"), table_schema(stage.writes))
    download, writer = stage.start(TarStore(out.join("images"), table.folder)), table.next_writer()

    def call(start: int) -> int:
        part = listed(urls.slice(start, PART))
        facts = download(part.drop_columns("id")).add_column(0, "id", part["id"])
        table.append(facts.select(table.schema.names).cast(table.schema), writer, {})
        return int(facts["error"].null_count)

    download(listed(urls.slice(0, 1)))  # starts img2dataset
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        images = sum(threads.map(call, range(0, urls.num_rows, PART)))
    seconds = time.perf_counter() - begin
    peaks = {"worker": resource.RUSAGE_SELF, "child": resource.RUSAGE_CHILDREN}
    download.close()  # only of a process that has ended, time and peak are known
    mib = {name: resource.getrusage(who).ru_maxrss / 1024 for name, who in peaks.items()}
    return {"images": images, "seconds": seconds, **mib}


def listed(urls: Any) -> Any:
    """Return a part as the stage gets it: with ids, and sizes that the list does not know."""
    import pyarrow as pa

    ids = [int(url.rpartition("/")[2]) for url in urls["url"].to_pylist()]
    nulls = pa.nulls(urls.num_rows, pa.int32())
    return pa.table({"id": ids, "url": urls["url"], "width": nulls, "height": nulls})


def cpu() -> float:
    """CPU seconds of processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def server(sizes: Sequence[int]) -> Iterator[int]:
    """Serve images of these sizes, in kB, in another process; yield the port."""
    command = [sys.executable, __file__, "--only", "serve", "--sizes", *map(str, sizes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def serve(sizes: Sequence[int]) -> None:
    answers = {str(size): answer(size) for size in sizes}

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = self.rfile.readline().split(b"/")[1].decode()
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answers[size])

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, request_queue_size = True, 1024

    with Server(("127.0.0.1", 0), Handler) as listening:
        print(listening.server_address[1], flush=True)
        listening.serve_forever()


def answer(size: int) -> bytes:
    """An answer with a JPEG of noise of about `size` kB."""
    from PIL import Image

    side, body = 64, b""
    while len(body) < size * 1000:
        side += 16
        data = io.BytesIO()
        Image.effect_noise((side, side), 60).save(data, "JPEG", quality=85)
        body = data.getvalue()
    return b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body


if __name__ == "__main__":
    main()
