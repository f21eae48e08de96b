"""Proof on a GPU: what the model and the pipeline claim of one, checked and measured by one script.

    python3 benchmarks/gpu_proof.py            on a machine with one NVIDIA GPU; no network, no installation
    make gpu-proof ARGS=--dry                  the same lines at tiny sizes on a CPU

Run it from the repository. Each line of the table runs in a process of its own with a time limit, so that neither a
crash nor a hang stops the others; all end within 8 minutes. The lines of the model need torch, transformers, numpy,
Pillow, safetensors and pydantic. A line whose packages are missing is skipped. Sizes fit a GPU with 80 GB, limits of
time are for an A100 or faster. The exit code is 1 if a line failed or a limit is missed. docs/gpu.md explains each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from gpu_lines.proof import Figure, Line, Outcome, Processes

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 8
FAISS, OPEN_CLIP = ("faiss", "pyarrow"), ("open_clip", "torchvision", "pyarrow")
LINES = (
    Line("machine", "gpu_lines.machine:machine", 30),
    Line("parity with transformers", "gpu_lines.network:parity", 40),
    Line("varlen attention", "gpu_lines.attention:varlen", 40),
    Line("kernel under autocast", "gpu_lines.attention:autocast", 20),
    Line("new row shapes", "gpu_lines.attention:new_shapes", 30),
    Line("float32 on long rows", "gpu_lines.attention:float32", 20),
    Line("compiled graphs", "gpu_lines.training:graphs", 40),
    Line("host syncs", "gpu_lines.training:host_syncs", 30),
    Line("loss at 16k tokens", "gpu_lines.network:loss", 30),
    Line("training", "gpu_lines.training:eager", 60),
    Line("training, compiled", "gpu_lines.training:compiled", 100),
    Line("FSDP2 with one rank", "gpu_lines.network:fsdp", 30),
    Line("checkpoint and resume", "gpu_lines.training:resume", 40),
    Line("generation", "gpu_lines.network:generation", 40),
    Line("loader", "gpu_lines.data:loader", 70),
    Line("pinned uint8 rows", "gpu_lines.data:pinned", 20),
    Line("CLIP ViT-B/32", "gpu_lines.images:vit_b_32", 40, OPEN_CLIP),
    Line("CLIP ViT-L/14", "gpu_lines.images:vit_l_14", 60, OPEN_CLIP),
    Line("coarse captions", "gpu_lines.images:coarse", 60, ("torchvision", "pyarrow")),
    Line("k-means", "gpu_lines.clusters:kmeans", 40, FAISS),
    Line("nearest centroids", "gpu_lines.clusters:nearest", 30, FAISS),
    Line("placement on a real card", "gpu_lines.placement:placement", 60, ("ray",)),
    Line("lmdeploy's arguments", "gpu_lines.captions:lmdeploy", 30, ("lmdeploy",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    parser.add_argument("--only", metavar="NAMES", help="lines, separated by semicolons (default: all)")
    args = parser.parse_args()
    names = [line.name for line in LINES]
    chosen = [name.strip() for name in args.only.split(";")] if args.only else names
    if unknown := set(chosen) - set(names):
        parser.error(f"no line {min(unknown)!r}: there are {'; '.join(names)}")
    # Processes find the project without an installation, and no hub is asked for anything.
    folders = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")]
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "HF_HUB_OFFLINE": "1"}
    sys.path.insert(0, str(ROOT))
    begin = time.perf_counter()
    outcomes = []
    with Processes(args.dry, begin + 60 * MINUTES) as processes:
        for line in LINES:
            if line.name in chosen:
                outcomes.append(processes.run(line))
                print("\n".join(rows(outcomes[-1])), flush=True)
    seconds = time.perf_counter() - begin
    counts = {state: sum(o.state == state for o in outcomes) for state in ("ok", "failed", "skipped")}
    print(", ".join(f"{count} {state}" for state, count in counts.items()) + f"; {seconds:.0f} s")
    if args.json:
        results = {"dry": args.dry, "seconds": round(seconds, 1), "lines": [outcome.as_json() for outcome in outcomes]}
        Path(args.json).write_text(json.dumps(results, indent=2))
    sys.exit(counts["failed"] > 0)


def rows(outcome: Outcome) -> list[str]:
    """The table's rows of a line: its state, then what it measured."""
    state = outcome.state + (f": {outcome.message}" if outcome.message else "")
    return [f"{outcome.line:<26}{state}  ({outcome.seconds:.1f} s)", *map(row, outcome.figures)]


def row(figure: Figure) -> str:
    return f"  {figure.name:<52} {figure.shown:>20}  {figure.limit}".rstrip()


if __name__ == "__main__":
    main()
