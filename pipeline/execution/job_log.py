"""The jobs of a run: what each computed and how fast, one small JSON file per job in `RUN/jobs`.

Facts do not depend on it. A job that was killed leaves no file.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from manifests.run import Run
from manifests.storage import Folder
from pipeline.execution.job_result import JobResult

FOLDER = "jobs"
_MOST = 10_000  # files that are read, the newest: each job of a run on an object store costs a request


@dataclass(frozen=True)
class StageSpeed:
    """All recorded jobs of one step.

    Attributes:
        stage: `index`, the step's name, or the name with ` (training)`.
        jobs: Number of jobs that computed something.
        rows: Rows that they computed.
        errors: Computed rows that failed.
        seconds: Sum of their wall times, with the start of workers and models.
        working: Sum of their wall times from the first row taken to the last row stored.
        idle: Share of the workers' time in which the model waited, weighted by `working`; None if not measured.
    """

    stage: str
    jobs: int
    rows: int
    errors: int
    seconds: float
    working: float
    idle: float | None

    @property
    def rate(self) -> float:
        """Rows per second of `working`."""
        return self.rows / max(self.working, 1e-3)


def record(run: Run, job: JobResult) -> JobResult:
    """Write down a finished job that computed something; return it."""
    if job.computed:
        name = f"{time.time_ns():019d}-{uuid.uuid4().hex[:8]}.json"  # names sort by time
        counts = {key: value for key, value in asdict(job).items() if key != "notes"}
        _folder(run).write(name, json.dumps(counts, ensure_ascii=False).encode())
    return job


def speeds(run: Run, say: Callable[[str], None]) -> list[StageSpeed]:
    """Return the recorded speed of each step, in the order of their first jobs; none in runs of earlier versions.

    Args:
        run: The run.
        say: Called with a line for the user about each file that is damaged, and not counted.
    """
    folder = _folder(run)
    names = [file.base_name for file in folder.files() if file.base_name.endswith(".json")][-_MOST:]
    jobs: dict[str, list[_Job]] = {}
    for name in names:
        try:
            job = _parsed(folder.read(name))
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            say(f"{folder.path}/{name}: the record of a job is damaged and not counted: delete it")
            continue
        jobs.setdefault(job.stage, []).append(job)
    return [_sum(stage, of_stage) for stage, of_stage in jobs.items()]


class _Job(NamedTuple):
    """What is recorded of a job, see `JobResult`."""

    stage: str
    computed: int
    errors: int
    seconds: float
    working: float
    idle: float | None


def _parsed(content: bytes) -> _Job:
    job = json.loads(content)
    seconds, working = float(job["seconds"]), float(job["working"])
    idle = None if job["idle"] is None else float(job["idle"])
    return _Job(str(job["stage"]), int(job["computed"]), int(job["errors"]), seconds, working, idle)


def _sum(stage: str, jobs: list[_Job]) -> StageSpeed:
    measured = [(job.idle, job.working) for job in jobs if job.idle is not None]
    weight = sum(working for _, working in measured)
    return StageSpeed(
        stage=stage,
        jobs=len(jobs),
        rows=sum(job.computed for job in jobs),
        errors=sum(job.errors for job in jobs),
        seconds=sum(job.seconds for job in jobs),
        working=sum(job.working for job in jobs),
        idle=sum(idle * working for idle, working in measured) / weight if weight else None,
    )


def _folder(run: Run) -> Folder:
    return run.folder.join(FOLDER)
