"""The result of a job: how many rows it stored, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import pyarrow as pa

from pipeline.execution.tally import Tally


@dataclass(frozen=True)
class JobStats:
    """Counts and times of one Ray job.

    Attributes:
        rows: Rows stored.
        errors: Stored rows that failed.
        seconds: Wall time, including the start of workers and models, excluding the start of Ray.
        working: Wall time from the first row that a worker took to the last row stored, excluding start-up.
        idle: Share of the workers' time in which their model waited; None if the stage has no model that can wait.
    """

    rows: int
    errors: int
    seconds: float
    working: float
    idle: float | None

    @classmethod
    def of(cls, receipts: pa.Table, seconds: float) -> Self:
        """Sum up the receipts of a job (see `receipts.receipt`) that took `seconds`."""
        tally = Tally.of(receipts)
        return cls(tally.rows, tally.errors, seconds, tally.working, tally.idle)


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
        idle: Share of the workers' time in which the model waited for images; None if the stage has no model, or none
            that waits for images. Jobs of earlier versions had a number near 1 for stages without a model.
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
