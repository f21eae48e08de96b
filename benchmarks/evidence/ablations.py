"""What single settings of VideoLLaMA3 change, on a small model: four studies with equal samples or tokens, and seeds.

* pruning: the threshold of the frame pruner DiffFP (`ablation/pruning.py`);
* resolution: any resolution against one square (`ablation/resolution.py`);
* packing: packed rows against padded ones (`ablation/packing.py`);
* quota: at most so many images of a cluster of a raw pool (`ablation/quota.py`).

All learn from scenes and films of named cut-outs, as `train_arms.py` does, and share its small model
(`train-arms.yaml`). So the results are about such scenes and a model of a million parameters.

Each step's result stays in --work: the same command goes on after an interruption.

    .venv/bin/python benchmarks/evidence/ablations.py --work build/ablations
    .venv/bin/python benchmarks/evidence/ablations.py --work build/ablations --seeds 1    # a look: no interval
    .venv/bin/python benchmarks/evidence/ablations.py --work build/ablations-tiny --tiny    # a check that all works
    .venv/bin/python benchmarks/evidence/ablations.py --table    # write docs/evidence.md of ablations.json again
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT / "benchmarks"), str(ROOT / "recipes"), str(ROOT)]

from common import machine  # noqa: E402

from evidence.ablation import films, packing, pruning, quota, resolution, training  # noqa: E402
from evidence.ablation.lab import Lab, Sizes, Study  # noqa: E402
from evidence.ablation.section import section  # noqa: E402
from evidence.arms import options  # noqa: E402
from evidence.arms.steps import Steps, at_once, pick, raise_failures, write_json  # noqa: E402
from evidence.arms.table import write_page  # noqa: E402

STUDIES = {one.name: one for one in (resolution.STUDY, packing.STUDY, pruning.STUDY, quota.STUDY)}
FULL = Sizes(
    **{"objects": 20, "held_out": 200, "films": 1200, "scenes": 3600, "raw": 4000, "images": 1200},
    **{"helper_scenes": 6000, "helper_steps": 1000},
    **{"pruning_steps": 450, "resolution_steps": 700, "packing_steps": 100, "quota_steps": 700},
)
TINY = Sizes(
    **{"objects": 5, "held_out": 18, "films": 24, "scenes": 36, "raw": 400, "images": 40},
    **{"helper_scenes": 256, "helper_steps": 8},
    **{"pruning_steps": 4, "resolution_steps": 4, "packing_steps": 4, "quota_steps": 4},
)
SEEDS = 3
PAGE = ROOT / "docs/evidence.md"
STORED = Path(__file__).with_suffix(".json")


def main() -> None:
    args = arguments()
    if args.table:
        write(stored())
        return
    studies = [STUDIES[name] for name in args.only]
    lab = laboratory(args.work.resolve(), args.tiny, args.steps)
    begun = time.perf_counter()
    scores = measure(lab, studies, args.seeds, args.jobs)
    head = {
        "command": shlex.join(["python", "benchmarks/evidence/ablations.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(("torch", "transformers", "open_clip_torch", "av")),
        "settings": asdict(lab.sizes),
    }
    results = {name: {**head, "arms": arms} for name, arms in scores.items()}
    write_json(lab.work / "results.json", results)
    for study in studies:
        print(f"## {study.heading}\n\n{section(study, results[study.name])}\n")
    print(f"{time.perf_counter() - begun:.0f} s in this call; {lab.work / 'results.json'}", file=sys.stderr)
    if args.write:
        STORED.write_text(json.dumps(stored() | results, indent=1) + "\n")
        write(stored())


def arguments() -> argparse.Namespace:
    made = options.parser(__doc__ or "", str(PAGE.relative_to(ROOT)), SEEDS)
    made.add_argument("--only", default=",".join(STUDIES), help="some of the studies (default %(default)s)")
    args = options.parse(made)
    args.only = pick(args.only.split(","), list(STUDIES), "study")
    return args


def laboratory(work: Path, tiny: bool, steps: int | None) -> Lab:
    """Return the folder of the studies. It exits with one line if that was begun with other sizes."""
    sizes = TINY if tiny else FULL
    if steps is not None:
        sizes = replace(sizes, **{f"{name}_steps": steps for name in STUDIES})
    lab = Lab(work, Steps(work), sizes)
    lab.steps.claim({**asdict(sizes), "films": films.kind(), "thresholds": list(pruning.THRESHOLDS)})
    return lab


def measure(lab: Lab, studies: Sequence[Study], seeds: int, jobs: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Make, train and evaluate. Return the scores of each seed by study and arm."""
    lab.steps.run("lessons", lambda: training.write_lessons(lab))
    facts: dict[tuple[str, int], dict[str, Any]] = {}
    trials: dict[tuple[str, str, int], Future[dict[str, Any]]] = {}
    with at_once(jobs) as workers:
        prepared = {prepare: workers.submit(prepare, lab) for prepare in dict.fromkeys(s.prepare for s in studies)}
        for study in studies:  # the next study's scenes are made while the last one's models train
            prepared[study.prepare].result()
            for seed in range(seeds):
                facts[study.name, seed] = study.make(lab, seed)
                raise_failures(trials.values())
                trials |= {(study.name, arm, seed): workers.submit(study.learn, lab, arm, seed) for arm in study.arms}
        learned = {key: trial.result() for key, trial in trials.items()}
    return {
        study.name: {
            arm: [
                {"seed": seed, **facts[study.name, seed].get(arm, {}), **learned[study.name, arm, seed]}
                for seed in range(seeds)
            ]
            for arm in study.arms
        }
        for study in studies
    }


def stored() -> dict[str, Any]:
    """Return the stored results of each study; nothing if none were stored."""
    return dict(json.loads(STORED.read_text())) if STORED.is_file() else {}


def write(results: Mapping[str, Any]) -> None:
    """Write the section of each study that has results into docs/evidence.md."""
    for name, study in STUDIES.items():
        if name in results:
            write_page(PAGE, section(study, results[name]), f"ablation {name}", study.heading)


if __name__ == "__main__":
    main()
