"""A stage whose workers can be held in a call, and start servers as captioners do; it writes down what it computed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from captioners.engines.server_process import start_server
from core.stages import Facts, LoadedStage
from manifests.schemas import column

CALLS = 2  # of each worker that go on while there is a gate


class Gated(LoadedStage):
    """Twice the width.

    Attributes:
        folder: Holds one file per worker, named by its process, with the keys that it computed; and the file `gate`
            while workers shall wait in their third call.
        serves: Whether each worker starts a server.
    """

    name: ClassVar = "gated"
    reads: ClassVar = ("width", "key")
    writes: ClassVar = pa.schema([column("double", pa.int32(), "Twice the width", 0)])
    fingerprint_exclude: ClassVar = ("folder", "serves")

    folder: str
    serves: bool = False

    def load(self) -> Facts:
        return _Loaded(self)


class GatedDriver(Gated):
    """The same in the driver."""

    name: ClassVar = "gated_driver"
    driver_rows: ClassVar = 10_000


class _Loaded(Facts):
    def __init__(self, stage: Gated) -> None:
        self._stage, self._calls = stage, 0
        self._keys = Path(stage.folder) / str(os.getpid())
        self._keys.touch()
        if stage.serves:
            models = Path(stage.folder) / "v1/models"
            models.parent.mkdir(exist_ok=True)
            models.touch()
            server = f"{sys.executable} -m http.server {{port}} --bind 127.0.0.1 --directory {stage.folder}"
            self._server = start_server(server, "m", 100, stage.name)

    def __call__(self, batch: pa.Table) -> pa.Table:
        self._calls += 1
        while self._calls > CALLS and self._keys.with_name("gate").exists():
            time.sleep(0.05)
        with self._keys.open("a") as keys:
            keys.writelines(f"{key}\n" for key in batch["key"].to_pylist())
        doubles = [2 * width for width in batch["width"].to_pylist()]
        return pa.table([pa.array(doubles, pa.int32())], schema=self._stage.writes)


class GatedRun:
    """A recipe with a gated stage, and what its workers did."""

    def __init__(self, folder: Path, pool: Path, stage: str = "Gated", resources: str = "part_rows: 8") -> None:
        """Write the recipe and the gate into a new folder."""
        self.run, self.recipe, self.calls = folder / "run", folder / "recipe.yaml", folder / "calls"
        self.calls.mkdir(parents=True)
        self.gate = self.calls / "gate"
        self.gate.touch()
        entry = f'stage: "tests.gated_stage:{stage}", folder: {self.calls}, serves: true, resources: {{{resources}}}'
        self.recipe.write_text(f"pool: {{images: {pool}}}\nstages:\n  - stage: aspect_ratio\n  - {{{entry}}}\n")

    @property
    def command(self) -> list[str]:
        return ["python", "-m", "pipeline", "run", str(self.recipe), "--run", str(self.run)]

    def wait_at_the_gate(self, workers: int, seconds: float = 120) -> None:
        """Wait until so many workers have stored what goes on in spite of the gate, and nothing more happens."""
        deadline = time.monotonic() + seconds
        while len(list(self.run.glob("stages/gated*/part-*.parquet"))) < workers * CALLS:
            assert time.monotonic() < deadline, "the workers did not get to the gate"
            time.sleep(0.05)

    def keys(self) -> list[str]:
        """The keys that were computed, each as often as it was."""
        return [key for file in self._worker_files() for key in file.read_text().split()]

    def processes(self) -> list[str]:
        """The workers, and the processes with the folder or the run in their command, that are alive."""
        commands = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                commands[entry.name] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended meanwhile
        workers = {file.name for file in self._worker_files()}
        ours = (str(self.calls), str(self.run))
        return [c for pid, c in commands.items() if c and (pid in workers or any(path in c for path in ours))]

    def wait_for_end(self, seconds: float) -> None:
        """Wait until none of `processes` is alive."""
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

    def _worker_files(self) -> list[Path]:
        return [file for file in self.calls.iterdir() if file.name.isdigit()]
