"""A run in the test's own process, on the session's Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manifests import Run, open_run
from pipeline.execution.index import open_pool
from pipeline.execution.job_result import JobResult
from pipeline.execution.runner import build_index, prepare, run_stages
from pipeline.recipe import parse_recipe


def run(recipe: dict[str, Any], url: Path | str, refit: bool = False) -> tuple[Run, dict[str, JobResult]]:
    """Do everything the recipe says; the run, and what each job did."""
    checked = parse_recipe(recipe, "test")
    listing = open_pool(checked.pool, str(url))
    opened = prepare(checked, str(url), refit)
    jobs = [build_index(opened, checked.pool, listing, lambda text: None), *run_stages(opened, checked, refit=refit)]
    return open_run(str(url)), {job.stage: job for job in jobs}
