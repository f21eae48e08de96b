"""Stages that write down where they ran. A recipe names them by their paths."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from clustering.kmeans import Clusters
from core.stages import Facts, LoadedStage, Stage
from manifests.schemas import column


def _columns(prefix: str) -> pa.Schema:
    return pa.schema(
        [
            column(f"{prefix}_process", pa.int32(), "Process that computed the row", nominal=True),
            column(f"{prefix}_node", pa.string(), "Ray's id of its node"),
            column(f"{prefix}_devices", pa.string(), "CUDA_VISIBLE_DEVICES"),
        ]
    )


def _here(batch: pa.Table, writes: pa.Schema) -> pa.Table:
    import ray

    node, devices = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return pa.table([[value] * batch.num_rows for value in (os.getpid(), node, devices)], schema=writes)


def meet(folder: str, processes: int) -> None:
    """Wait until so many processes have come here, so that each gets a part of the work."""
    Path(folder).mkdir(exist_ok=True)
    with suppress(FileExistsError):  # the file keeps the time of its first part
        (Path(folder) / str(os.getpid())).touch(exist_ok=False)
    deadline = time.monotonic() + 180
    while len(list(Path(folder).iterdir())) < processes:
        assert time.monotonic() < deadline, f"{len(list(Path(folder).iterdir()))} of {processes} came"
        time.sleep(0.1)


class Probe(LoadedStage):
    """Loads something, so it runs in actors."""

    name: ClassVar = "probe"
    reads: ClassVar = ("width",)
    writes: ClassVar = _columns("probe")

    meeting: str = ""
    processes: int = 0
    seconds: float = 0
    wants: int = 1

    @property
    def gpus(self) -> int:
        return self.wants

    def load(self) -> Facts:
        return _Here(self)


class _Here(Facts):
    def __init__(self, stage: Probe) -> None:
        self._stage = stage

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._stage.meeting:
            meet(self._stage.meeting, self._stage.processes)
        time.sleep(self._stage.seconds)
        return _here(batch, self._stage.writes)


class TaskProbe(Stage):
    """Loads nothing, so it runs in tasks."""

    name: ClassVar = "task_probe"
    reads: ClassVar = ("width",)
    writes: ClassVar = _columns("task")

    meeting: str = ""
    processes: int = 0
    seconds: float = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self.meeting:
            meet(self.meeting, self.processes)
        time.sleep(self.seconds)
        return _here(batch, self.writes)


class Vectors(Stage):
    """Embeddings."""

    name: ClassVar = "vectors"
    reads: ClassVar = ("id",)
    writes: ClassVar = pa.schema([column("image_embedding", pa.list_(pa.float16(), 4), "Vector of the id")])

    def __call__(self, batch: pa.Table) -> pa.Table:
        import numpy as np

        ids = batch["id"].to_numpy() % 97 / 97 * 6
        vectors = np.stack([np.cos(ids), np.sin(ids), 0 * ids, 0 * ids], axis=1).astype(np.float16)
        return pa.table([pa.FixedSizeListArray.from_arrays(vectors.ravel(), 4)], schema=self.writes)


class ProbeClusters(Clusters):
    """Writes the GPUs of its training down, beside the centroids."""

    driver_rows: ClassVar = 0

    def fit(self, sample: pa.Table) -> tuple[pa.Table, dict[str, object]]:
        table, provenance = super().fit(sample)
        return table, {**provenance, "devices": os.environ.get("CUDA_VISIBLE_DEVICES")}
