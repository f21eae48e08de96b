"""A job of the stage `Gated` on a cluster, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.ray_nodes import Cluster

ROOT = Path(__file__).parents[2]
WIDE, UPRIGHT, PART = 64, 128, 16


@dataclass(frozen=True)
class Job:
    """A job under way.

    Attributes:
        folder: It holds `run`, and what the process prints: `out` and `log`.
        process: `vl3syn run --json`.
    """

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not happened():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)


def start_gated(cluster: Cluster, folder: Path, actors: int) -> Job:
    """Start a job of 192 images and one broken file: parts of 16 images, of which most of the first 64 do not wait."""
    pool = folder / "pool"
    pool.mkdir()
    for number in range(WIDE + UPRIGHT):
        Image.new("RGB", (48, 32) if number < WIDE else (32, 48)).save(pool / f"{number:03}.png")
    (pool / "000-broken.png").write_bytes(b"not an image")
    (folder / "recipe.yaml").write_text(
        f"pool: {{images: {pool}}}\nstages:\n  - stage: tests.cluster.gated:Gated\n    gate: {folder / 'gate'}\n"
        f"    resources: {{actors: {actors}, num_cpus: 1, threads: 1, part_rows: {PART}, image_seconds: 900}}\n"
    )
    command = [sys.executable, "-m", "pipeline", "run", "recipe.yaml", "--run", str(folder / "run"), "--json"]
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "VL3SYN_PROGRESS_SECONDS": "1"}
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=out, stderr=log, start_new_session=True)
    return Job(folder, process)
