"""Does curated data train a better model than random data, at equal images, tokens and steps?

Scenes of named cut-outs, where all is known (`arms/scenes.py`). A raw pool has wrong captions, boilerplate,
near-duplicates, blurred and tiny images, objects by Zipf's law, and alt texts most of which are incomplete
(`arms/pool.py`). Four arms choose as many images from it, by recipes of `vl3syn run`:

* random: images drawn at random, with their alt texts (`arm-random.yaml`);
* filtered: drawn at random from what the filters leave (`arm-filtered.yaml`);
* balanced: drawn evenly from clusters of what the filters leave (`arm-balanced.yaml`);
* recaptioned: the same images, captioned anew (`arm-recaptioned.yaml`).

Each arm trains the same new model (`train-arms.yaml`, `vl3syn train`). Measured on clean scenes in which all objects
are equally frequent: the loss, the loss with other images, and the rank of the right caption among 60 by loss. All
arms of a seed share the pool, the model's first weights and the seed of the order of samples.

**Two small models stand for published ones, and both have learned from clean scenes of this very kind**: a CLIP
(`arms/encoder.py`) for ViT-L/14, and a VideoLLaMA3 of the students' size (`train-recaptioner.yaml`) for InternVL. So
the arms show what curation gives where its models are good at the pool's domain, not how good the published ones are.

Each step's result stays in --work: the same command goes on after an interruption.

    .venv/bin/python benchmarks/evidence/train_arms.py --work build/arms
    .venv/bin/python benchmarks/evidence/train_arms.py --work build/arms-tiny --tiny    # a check that all works
    .venv/bin/python benchmarks/evidence/train_arms.py --table    # write docs/evidence.md of train_arms.json again
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT / "benchmarks"), str(ROOT / "recipes"), str(ROOT)]

from common import machine  # noqa: E402

from evidence.arms import helpers, options  # noqa: E402
from evidence.arms.curation import ARMS, curate  # noqa: E402
from evidence.arms.cut_outs import Materials  # noqa: E402
from evidence.arms.helpers import HELD_OUT, HELPERS, Sizes  # noqa: E402
from evidence.arms.plot import plot  # noqa: E402
from evidence.arms.pool import SHARES, raw_rows, write_raw  # noqa: E402
from evidence.arms.scenes import INCOMPLETE  # noqa: E402
from evidence.arms.steps import Steps, at_once, call, pick, raise_failures, read_json, write_json  # noqa: E402
from evidence.arms.table import section, write_page  # noqa: E402

FULL = Sizes(scenes=12_000, images=2000, held_out=300, steps=700, helper_scenes=12_000, helper_steps=2200)
TINY = Sizes(scenes=600, images=100, held_out=40, steps=60, helper_scenes=512, helper_steps=60)
SEEDS = 5
PAGE = ROOT / "docs/evidence.md"
STORED = Path(__file__).with_suffix(".json")


def main() -> None:
    args = arguments()
    if args.table:
        write_page(PAGE, section(read_json(STORED)))
        return
    arms, sizes = pick(args.arms.split(","), ARMS), TINY if args.tiny else FULL
    sizes = replace(sizes, steps=args.steps or sizes.steps)
    work: Path = args.work.resolve()
    steps = Steps(work)
    steps.claim({**asdict(sizes), "incomplete": INCOMPLETE})
    begun = time.perf_counter()
    made_of, recaptioner = prepare(steps, work, sizes, recaption="recaptioned" in arms)
    composed: dict[tuple[str, int], dict[str, Any]] = {}
    scores: dict[tuple[str, int], Future[dict[str, Any]]] = {}
    with at_once(args.jobs) as workers:
        for seed in range(args.seeds):  # the next pool is curated while models of the last one are trained
            for arm, chosen in curate_seed(steps, work, sizes, seed, arms, made_of).items():
                composed[arm, seed] = chosen
                scores[arm, seed] = workers.submit(learn, steps, work, sizes, arm, seed)
            raise_failures(scores.values())
        learned = {key: score.result() for key, score in scores.items()}
    by_arm = {arm: [{"seed": s, **composed[arm, s], **learned[arm, s]} for s in range(args.seeds)] for arm in arms}
    results = {
        "command": shlex.join(["python", "benchmarks/evidence/train_arms.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(("torch", "transformers", "open_clip_torch")),
        "settings": {**asdict(sizes), "tokens": helpers.row_tokens()},
        "defects": SHARES,
        "incomplete": INCOMPLETE,
        "recaptioner": recaptioner,
        "among": by_arm[arms[0]][0]["among"],
        "arms": by_arm,
    }
    write_json(work / "results.json", results)
    plot(results, work / "arms.svg")
    print(section(results))
    print(f"{time.perf_counter() - begun:.0f} s in this call; {work / 'results.json'}", file=sys.stderr)
    if args.write:
        write_json(STORED, results)
        write_page(PAGE, section(results))
        shutil.copy(work / "arms.svg", PAGE.parent / "images/arms.svg")


def arguments() -> argparse.Namespace:
    made = options.parser(__doc__ or "", str(PAGE.relative_to(ROOT)), SEEDS)
    made.add_argument("--arms", default=",".join(ARMS), help="some of the arms (default %(default)s)")
    return options.parse(made)


def prepare(steps: Steps, work: Path, sizes: Sizes, recaption: bool) -> tuple[Materials, dict[str, Any] | None]:
    """Make what all arms need; the two models at the same time, a core each. Return the recaptioner's scores, too."""
    made_of, scores = helpers.materials(work), None
    steps.run("held-out", lambda: helpers.write_held_out(work, sizes, made_of))
    steps.run("lessons", lambda: helpers.write_lessons(work, sizes, made_of))
    with ThreadPoolExecutor(2) as workers:
        clip = workers.submit(steps.run, "clip", lambda: helpers.train_clip(work, sizes.helper_scenes))
        if recaption:
            steps.run("recaptioner", lambda: helpers.train_recaptioner(work, sizes))
            model = work / HELPERS / "recaptioner/1-captions/model"
            scores = steps.run("recaptioner-scores", lambda: evaluate(work, model, work / HELPERS))
        clip.result()
    return made_of, scores


def curate_seed(
    steps: Steps, work: Path, sizes: Sizes, seed: int, arms: list[str], made_of: Materials
) -> dict[str, dict[str, Any]]:
    """Make a seed's raw pool, and let each arm choose from it."""
    folder = work / f"seed-{seed}"
    steps.run(f"pool-{seed}", lambda: write_raw(raw_rows(sizes.scenes, seed, made_of), folder / "pool"))
    return {arm: steps.run(f"{arm}-{seed}", partial(curate, arm, folder, sizes.images, seed)) for arm in arms}


def learn(steps: Steps, work: Path, sizes: Sizes, arm: str, seed: int) -> dict[str, Any]:
    """Train and evaluate an arm of a seed."""
    folder = work / f"seed-{seed}" / arm
    seen = steps.run(f"{arm}-{seed}-training", lambda: helpers.train_arm(folder, sizes.steps, seed))
    model = folder / "training/1-captions/model"
    scores = steps.run(f"{arm}-{seed}-scores", lambda: evaluate(work, model, folder))
    return {**seen, **scores, "seconds": seen["seconds"]}


def evaluate(work: Path, model: Path, folder: Path) -> dict[str, Any]:
    """Evaluate a model on the held-out scenes, in a process with one thread."""
    result = folder / "scores.json"
    call("evidence.arms.evaluation", str(model), str(work / HELD_OUT), str(result), folder=folder, threads=1)
    return read_json(result)


if __name__ == "__main__":
    main()
