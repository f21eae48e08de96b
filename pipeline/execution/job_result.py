"""The result of a job: how many rows it stored, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import polars as pl
import pyarrow as pa


@dataclass(frozen=True)
class JobStats:
    """Counts and times of one Ray job.

    Attributes:
        rows: Rows stored.
        errors: Stored rows that failed.
        seconds: Wall time, including the start of workers and models, excluding the start of Ray.
        working: Wall time from the first row that a worker took to the last row stored, excluding start-up.
        idle: Share of the workers' time in which their model had nothing to do; None if it is not measured.
    """

    rows: int
    errors: int
    seconds: float
    working: float
    idle: float | None

    @classmethod
    def of(cls, receipts: pa.Table, seconds: float) -> Self:
        """Sum up the receipts of a job (see `receipts.receipt`) that took `seconds`."""
        frame = pl.DataFrame(receipts)
        per_worker = frame.group_by("worker").agg(
            (pl.col("end").max() - pl.col("begin").min()).alias("wall"),
            pl.col("busy").sum(),
            pl.col("busy").count().alias("measured"),
        )
        wall, busy, measured = per_worker.select(pl.col("wall", "busy", "measured").sum()).row(0)
        return cls(
            rows=int(frame["rows"].sum()),
            errors=int(frame["errors"].sum()),
            seconds=seconds,
            working=frame.select(pl.col("end").max() - pl.col("begin").min()).item(),
            idle=max(0.0, 1 - busy / wall) if measured and wall else None,
        )


@dataclass(frozen=True)
class JobResult:
    """The result of one step of a run: the index, the training of a stage, or a stage.

    Attributes:
        stage: `index`, the stage's name, or the name with ` (training)`.
        computed: Rows that this job computed.
        errors: Computed rows that failed.
        stored: Rows that were stored before and not computed again.
        seconds: Wall time of the job, without the start of Ray.
        working: Wall time from the first row taken to the last row stored, without the start of workers and models.
        idle: Share of the workers' time in which the model waited for images; None if the stage reads no images.
        notes: Lines for the user about what was computed.
    """

    stage: str
    computed: int
    errors: int
    stored: int
    seconds: float
    working: float = 0.0
    idle: float | None = None
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, stage: str, stats: JobStats, stored: int, notes: Sequence[str] = ()) -> Self:
        return cls(
            stage=stage,
            computed=stats.rows,
            errors=stats.errors,
            stored=stored,
            seconds=stats.seconds,
            working=stats.working,
            idle=stats.idle,
            notes=notes,
        )

    @classmethod
    def nothing_computed(cls, stage: str, stored: int, seconds: float) -> Self:
        return cls(stage=stage, computed=0, errors=0, stored=stored, seconds=seconds)

    @property
    def rate(self) -> float | None:
        """Rows per second of `working`; None if nothing was computed."""
        return self.computed / max(self.working, 1e-3) if self.computed else None


@dataclass(frozen=True)
class LocalResult:
    """The result of a job of local workers.

    Attributes:
        receipts: Receipts of the blocks that are stored.
        lost: Blocks that ended their process.
        untried: Blocks for which no process was left.
        seconds: Wall time, including the start of processes and models.
    """

    receipts: list[pa.Table] = field(default_factory=list)
    lost: list[pa.Table] = field(default_factory=list)
    untried: Sequence[pa.Table] = ()
    seconds: float = 0.0
