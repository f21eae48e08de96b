"""The vision encoder against transformers' `VideoLlama3VisionModel`: same weights, same patches, time and peak memory.

Both at the width of so400m (1152, MLP 4304, 16 heads), in float32, with fewer layers than its 27: all but the patch
embedding is the same work in every layer, so cost is linear in them. Cases:

* 16, 64 and 256 images of mixed sizes, sides of 6 to 24 patches (84 to 336 pixels). Time per patch tells of linearity;
* 256 small images, sides of 4 to 10 patches;
* 32 frames of a clip, 10 x 20 patches (16:9 in the budget of training), merged 2 x 2;
* one image of 64 x 64 patches (896 pixels a side);
* 16 of the images again, forward and backward.

Each variant runs in a process of its own, in turns; peak memory is measured apart from time. Targets: time ratio ≤ 1.0
on small images and frames, ≤ 1.05 elsewhere; peak memory ratio ≤ 1.0. Results are compared too.

    .venv/bin/python benchmarks/encoder.py
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from typing import Any

import packed
from common import machine, verdict
from turns import EXACT, in_turns, markdown, serve

Grids = list[tuple[int, int, int]]


def images(count: int, least: int, most: int) -> Grids:
    rng = random.Random(0)
    return [(1, rng.randint(least, most), rng.randint(least, most)) for _ in range(count)]


CASES: dict[str, tuple[Grids, float]] = {  # and the target of time
    "16 images": (images(16, 6, 24), 1.05),
    "64 images": (images(64, 6, 24), 1.05),
    "256 images": (images(256, 6, 24), 1.05),
    "256 small images": (images(256, 4, 10), 1.0),
    "32 frames": ([(32, 10, 20)], 1.0),
    "one large image": ([(1, 64, 64)], 1.05),
    "16 images, backward": (images(16, 6, 24), 1.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2, help="of 27 (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", help="serve this variant and case")
    args = parser.parse_args()
    if args.only:
        who, _, case = args.only.partition(" ")
        serve(work(who, case, args.layers))
        return
    results: dict[str, Any] = {"machine": machine(("torch", "transformers")), "layers": args.layers}
    for case in args.cases:
        results[case] = measure(case, args.layers, args.repeat)
    if args.json:
        print(json.dumps(results, indent=2))
        return
    columns = (
        *("case", "patches", "ours, s", "µs a patch", "time / transformers'", "target"),
        *("ours, MiB", "memory / transformers'", "target"),
    )
    print(
        f"{results['machine']}, {args.layers} layers\n\n{markdown(columns, [row(c, results[c]) for c in args.cases])}"
    )


def measure(case: str, layers: int, rounds: int) -> dict[str, Any]:
    works, arguments = [f"ours {case}", f"theirs {case}"], ["--layers", str(layers)]
    timed = in_turns(__file__, works, rounds + 1, arguments)[1:]
    held = in_turns(__file__, works, 1, arguments, EXACT)
    for ours, theirs in timed + held:
        if not math.isclose(ours["result"], theirs["result"], rel_tol=1e-4):
            raise SystemExit(f"{case}: not the same result: {ours['result']} and {theirs['result']}")
    return {
        "patches": sum(t * h * w for t, h, w in CASES[case][0]),
        "seconds": [ours["seconds"] for ours, _ in timed],
        "ratios": [ours["seconds"] / theirs["seconds"] for ours, theirs in timed],
        "mib": [one["mib"] for one in held[0]],
    }


def row(case: str, results: dict[str, Any]) -> tuple[str, ...]:
    seconds, ratio = statistics.median(results["seconds"]), statistics.median(results["ratios"])
    ours, theirs = results["mib"]
    return (
        case,
        f"{results['patches']:,}",
        f"{seconds:.2f}",
        f"{seconds / results['patches'] * 1e6:.0f}",
        f"{ratio:.2f} ({min(results['ratios']):.2f} to {max(results['ratios']):.2f})",
        verdict(ratio, CASES[case][1]),
        f"{ours:.0f}",
        f"{ours / theirs:.2f}",
        verdict(ours / theirs, 1.0),
    )


def work(who: str, case: str, layers: int) -> Any:
    """One variant, ready to run the case; the mean square of what it gives tells whether both do the same."""
    import torch

    grids, backward = CASES[case][0], case.endswith("backward")
    rows = torch.tensor(grids), torch.tensor([2 if t > 1 else 1 for t, _, _ in grids])
    patches = torch.rand(sum(t * h * w for t, h, w in grids), 588, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoder = build(who, layers)

    def run() -> float:
        encoder.zero_grad()
        with torch.set_grad_enabled(backward):
            if who == "ours":
                out = encoder(patches, *rows)
            else:
                out = encoder(patches, grid_thw=rows[0], merge_sizes=rows[1]).last_hidden_state
            loss = (out[:, ::64] ** 2).mean()
        if backward:
            loss.backward()
            return float(encoder.post_layernorm.weight.grad.abs().sum())
        return float(loss)

    return run


def build(who: str, layers: int) -> Any:
    """An encoder of either kind with the weights that the seed gives ours; the language model beside it is `tiny`."""
    from model.config import VisionConfig, preset

    whole = packed.build(who, preset("tiny").model_copy(update={"vision": VisionConfig(num_hidden_layers=layers)}))
    return whole.vision if who == "ours" else whole.model.vision_model


if __name__ == "__main__":
    main()
