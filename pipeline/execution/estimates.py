"""Estimate the time and the disk of a run from a measured sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.cpus import count_cpus
from manifests.run import Run
from pipeline.execution.job_result import JobResult
from pipeline.execution.preview import Preview, StagePreview
from pipeline.recipe import Recipe

_NO_LIMIT = 1 << 62  # rows
_Z = 1.96  # of an interval that holds the true share in 95 % of samples


@dataclass(frozen=True)
class StageTrial:
    """What a stage did with the sample, and what that means for the run.

    Attributes:
        stage: Its name in the recipe; `index` for the index.
        rows: Rows of the longer of its two jobs; 0: none reached it.
        errors: Rows of that job that failed.
        reached: Rows of the sample that the rules before it let through.
        start_seconds: Time before the first row: processes and models.
        row_seconds: Shortest and longest time per row, all workers of this machine together.
        row_bytes: Bytes that it stores per row, uncompressed, with texts and with images that it downloads.
        run_rows: Fewest and most rows that the run would compute; None: unknown.
        run_seconds: Shortest and longest time of that; None: unknown.
        note: Why it was not measured, or what the numbers leave out.
    """

    stage: str
    rows: int
    errors: int
    reached: int
    start_seconds: float
    row_seconds: tuple[float, float]
    row_bytes: float
    run_rows: tuple[int, int] | None
    run_seconds: tuple[float, float] | None
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """A measured sample.

    Attributes:
        images: Images of the sample.
        stages: The index and the stages that were measured, in order.
        run_seconds: Shortest and longest time of the whole run; None: a part of it is unknown.
        run_bytes: Bytes that the run would store, at most, without what it publishes; None: likewise.
        stopped: Why the trial ended before the last stage; None: it did not.
    """

    images: int
    stages: tuple[StageTrial, ...]
    run_seconds: tuple[float, float] | None
    run_bytes: float | None
    stopped: str | None

    @classmethod
    def of(cls, images: int, stages: Sequence[StageTrial], stopped: str | None) -> Self:
        """Sum up what the stages would take."""
        times = [stage.run_seconds for stage in stages if stage.run_seconds]
        sizes = [stage.row_bytes * stage.run_rows[1] for stage in stages if stage.run_rows]
        complete = not stopped and len(times) == len(sizes) == len(stages)
        seconds = (sum(low for low, _ in times), sum(high for _, high in times))
        return cls(images, tuple(stages), seconds if complete else None, sum(sizes) if complete else None, stopped)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate_index(plan: Preview, images: int, row_seconds: float) -> StageTrial:
    """Return the estimate of the index; `row_seconds` is the time of a row in one process."""
    new, rates = plan.pool.new, (row_seconds / count_cpus(), row_seconds)
    seconds = None if new is None else (new * rates[0], new * rates[1])
    rows = None if new is None else (new, new)
    return StageTrial("index", images, 0, images, 0.0, rates, 0.0, rows, seconds, "one process, or one for each CPU")


def estimate_stages(
    recipe: Recipe,
    plan: Preview,
    run: Run,
    jobs: Mapping[str, Sequence[JobResult]],
    reached: Mapping[str, int],
    images: int,
) -> Iterator[StageTrial]:
    """Yield the estimates of the stages that the sample went through.

    Args:
        recipe: The recipe.
        plan: What its run would do.
        run: The run of the sample.
        jobs: Its jobs, by stage.
        reached: How many images of the sample the rules let through to each stage.
        images: Images of the sample.
    """
    sizes = _sizes(run)
    first = next((stage for stage in plan.stages if stage.to_compute), None)  # rows before it are judged already
    base = reached[first.stage] if first else images
    most, bounded, limit = 0, True, _NO_LIMIT
    for step, stage in zip(recipe.steps, plan.stages, strict=True):
        done = jobs.get(step.name, [])
        if not done:
            return
        most = max(most, stage.to_compute or 0)
        low, high = _interval(min(reached[step.name], base), base) if base else (0.0, 1.0)
        expected = math.floor(low * ((first and first.to_compute) or 0)), min(limit, math.ceil(high * most))
        rows = _run_rows(stage, expected)
        rows = rows if rows is None or bounded or not stage.at_most else (0, rows[1])
        trained = f"{step.name} (training)" in jobs
        yield _estimate(stage, done, reached[step.name], sizes.get(step.name, 0.0), rows, trained)
        for rule in step.rules:
            bounded = bounded and rule.kind != "per_group"  # a small sample has few images of each group
            limit = min(limit, int(rule.threshold)) if rule.kind == "total" else limit


def _estimate(
    stage: StagePreview,
    done: Sequence[JobResult],
    reached: int,
    row_bytes: float,
    rows: tuple[int, int] | None,
    trained: bool,
) -> StageTrial:
    """Return the estimate of a stage: by its two jobs, a straight line and a mean of the longer one bound the time."""
    longest = max(done, key=lambda job: job.computed)
    mean = longest.working / max(longest.computed, 1)
    slope = mean
    if len(done) > 1 and (more := done[1].computed - done[0].computed) > 0:
        slope = min(mean, max(0.0, (done[1].working - done[0].working) / more))
    start = next((job.seconds - job.working for job in done if job.computed), 0.0)
    seconds = None
    if rows is not None and not rows[1]:
        seconds = (0.0, 0.0)
    elif rows is not None and longest.computed:
        seconds = (start + rows[0] * slope, start + rows[1] * mean)
    return StageTrial(
        stage=stage.stage,
        rows=longest.computed,
        errors=longest.errors,
        reached=reached,
        start_seconds=start,
        row_seconds=(slope, mean),
        row_bytes=row_bytes,
        run_rows=rows,
        run_seconds=seconds,
        note="without its training" if trained else "" if longest.computed else "no image of the sample reached it",
    )


def _run_rows(stage: StagePreview, expected: tuple[int, int]) -> tuple[int, int] | None:
    """Return the fewest and the most rows that the run would compute, of `expected` and of what is possible."""
    if stage.to_compute is None:
        return None
    if not stage.at_most:
        return stage.to_compute, stage.to_compute
    most = min(stage.to_compute, expected[1])
    return min(most, expected[0]), most


def _interval(count: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927, Probable inference)."""
    share, z = count / of, _Z**2 / of
    centre, half = share + z / 2, _Z * math.sqrt(share * (1 - share) / of + z / (4 * of))
    return max(0.0, (centre - half) / (1 + z)), min(1.0, (centre + half) / (1 + z))


def _sizes(run: Run) -> dict[str, float]:
    """Return the bytes per row of each stage's table, uncompressed, and of the images that it downloaded."""
    sizes = {}
    for stage in run.stages:
        facts = stage.table.scan().collect(engine="streaming")
        images = int(facts["image_bytes"].sum()) if "image_bytes" in facts.columns else 0
        sizes[stage.name] = (facts.estimated_size() + images) / max(facts.height, 1)
    return sizes
