"""Print the results of a command that computed something, and say whether it has failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from pipeline.commands import output

if TYPE_CHECKING:
    from pipeline.execution.job_result import JobResult
    from pipeline.publishing.clips.publish import PublishedClips
    from pipeline.publishing.publish import Published


def finish(url: str, jobs: Sequence[JobResult], json_: bool) -> None:
    """Print the results of a command that computed something: the jobs and the funnel.

    Raises:
        UserError: Every row of a job failed. It is raised after printing.
    """
    found, failure = print_results(url, jobs, json_)
    if json_:
        output.print_json(found)
    if failure:
        raise failure


def print_results(
    url: str,
    jobs: Sequence[JobResult],
    json_: bool,
    publish: Callable[[], Published | PublishedClips] | None = None,
) -> tuple[dict[str, Any], UserError | None]:
    """Print the results of a command as tables, unless they are to be JSON; publish.

    Returns:
        The results as JSON, and the failure that the command ends with: every row of a job failed, or nothing could be
        published.
    """
    from manifests import funnel as count
    from manifests import open_run
    from pipeline.commands.outcome import nothing_published, total_failure
    from pipeline.commands.publication import print_publication
    from pipeline.pools.registry import noun_of

    run = open_run(url)
    counted = count(run)
    failure: UserError | None = total_failure(run, counted, {"index", *(job.stage.partition(" ")[0] for job in jobs)})
    if not json_:
        output.print_jobs(jobs, noun_of(run))
        output.print_funnel(counted)
    published = None
    if publish and failure is None:
        try:
            published = publish()
            failure = nothing_published(published)
        except UserError as error:
            failure = error
    if published and not json_:
        print_publication(published)
    shards = {"published": asdict(published)} if published else {}
    return {"jobs": [asdict(job) for job in jobs], "funnel": counted.as_json(), **shards}, failure
