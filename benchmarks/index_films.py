"""The index of a pool of films against a bare PyAV loop that reads the same values of their headers.

Measured, one after the other in each repetition (A B A B …), with the films in the page cache, in one process, in CPU
seconds, which other programs on the machine hardly change:

* bare loop: opens each film with `av.open`, decodes its first frame for the rotation, and takes size, length, rate,
  number of frames, codec and whether there is sound;
* index: `Pool.index` of the pool. It also checks the boxes of MP4 files, opens no link, notes a variable rate, finds
  films that are cut off, and makes ids and errors.

Before the times are printed, the sizes and lengths of both are compared. Target: index of files ≤ 1.5 × the bare loop,
medians. The index of a tar has no target: the bare loop does not read the tar.

The films are made once, in about a minute: MP4, MKV, WebM, AVI and TS of 4 seconds with 640×360 pixels.

    .venv/bin/python benchmarks/index_films.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from common import SCRATCH, machine, report, spread, verdict

TARGET = 1.5
FORMATS = (("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("ts", "libx264"))
FAST = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}, "mpeg4": {}}
DISTINCT = 2
WIDTH, HEIGHT, RATE = 640, 360, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=200, help="films in the pool (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a film (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=7, help="repetitions (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    folder, tar = make_pool(SCRATCH / f"films-{args.films}-{args.seconds}", args.films, args.seconds)
    paths = sorted(folder.glob("*.*"))
    results: dict[str, Any] = {"machine": machine(("av", "pyarrow")), "rows": args.films}
    times: dict[str, list[float]] = {"bare": [], "files": [], "tar": []}
    for number in range(args.repeat + 1):
        begin = time.process_time()
        bare = {path.name: header(path) for path in paths}
        times["bare"].append(time.process_time() - begin)
        for kind, where in (("files", folder), ("tar", tar)):
            begin = time.process_time()
            rows = index(where)
            times[kind].append(time.process_time() - begin)
            if number == 0:
                compare(bare, rows)
    results |= {f"{kind}_s": seconds[1:] for kind, seconds in times.items()}  # the first time fills the caches
    ratios = {
        kind: [a / b for a, b in zip(results[f"{kind}_s"], results["bare_s"], strict=True)] for kind in ("files", "tar")
    }
    results |= {f"{kind}_ratio": ratio for kind, ratio in ratios.items()}
    report(
        results, ("what", "CPU seconds (min to max)", "films/CPU s", "× bare loop", "target"), table(results), args.json
    )


def table(results: dict[str, Any]) -> Iterable[tuple[object, ...]]:
    """One line per thing measured."""
    for key, name in (("bare", "bare PyAV loop"), ("files", "index of files"), ("tar", "index of a tar")):
        seconds = statistics.median(results[f"{key}_s"])
        ratio = 1.0 if key == "bare" else statistics.median(results[f"{key}_ratio"])
        target = verdict(ratio, TARGET) if key == "files" else ""
        yield name, spread(results[f"{key}_s"]), f"{results['rows'] / seconds:,.0f}", f"{ratio:.2f}", target


def make_pool(folder: Path, count: int, seconds: int) -> tuple[Path, Path]:
    """The films as files and in a tar, unless they are there already."""
    files, tar = folder / "files", folder / "films.tar"
    if tar.exists():
        return files, tar
    print(f"making {folder}", file=sys.stderr)
    files.mkdir(parents=True, exist_ok=True)
    made = [
        encode(f"{number}.{ending}", codec, seconds, number, files)
        for number in range(DISTINCT)
        for ending, codec in FORMATS
    ]
    films = [(path.suffix, path.read_bytes()) for path in made]
    for path in made:
        path.unlink()
    with tarfile.open(folder / "aside.tar", "w") as archive:
        for number in range(count):
            ending, data = films[number % len(films)]
            path = files / f"{number:05d}{ending}"
            path.write_bytes(data)
            archive.add(path, path.name)
    (folder / "aside.tar").rename(tar)
    return files, tar


def encode(name: str, codec: str, seconds: int, seed: int, folder: Path) -> Path:
    """A film of drifting noise, with a key frame every two seconds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 4 * 3 // 2, WIDTH // 4), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((4, 4), np.uint8))
    with av.open(str(folder / name), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options={"g": str(2 * RATE), **FAST[codec]})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(RATE * seconds):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / name


def header(path: Path) -> dict[str, Any]:
    """What a header says, with as little as PyAV needs for it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        first: Any = next(container.decode(stream))
        turned = round(first.rotation / 90) % 2
        length = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6
        rate = stream.average_rate or stream.guessed_rate or 0
        return {
            "width": first.height if turned else first.width,
            "height": first.width if turned else first.height,
            "duration": float(length),
            "fps": float(rate),
            "frames": stream.frames or round(length * rate),
            "codec": stream.codec_context.codec.canonical_name,
            "has_audio": bool(container.streams.audio),
        }


def index(where: Path) -> list[dict[str, Any]]:
    """The rows of the pool."""
    from pipeline.pools.registry import pool_of

    pool = pool_of(videos=str(where))
    listing = pool.listing()
    rows: list[dict[str, Any]] = pool.index(listing.root, listing.shards).to_pylist()
    return rows


def compare(bare: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Stop if the loop and the index do not tell the same of the same films."""
    for row in rows:
        loop = bare[row["key"]]
        same = all(row[name] == loop[name] for name in ("width", "height", "fps", "codec", "has_audio"))
        if row["error"] or not same or abs(row["duration"] - loop["duration"]) > 0.1:
            sys.exit(f"the bare loop and the index differ over {row['key']}: {loop} {row}")
    if len(rows) != len(bare):
        sys.exit("the bare loop and the index have another number of films")


if __name__ == "__main__":
    main()
