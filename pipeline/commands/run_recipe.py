"""What `vl3syn run` does: index the pool, compute the stages, publish; of films, then the same with their clips."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.errors import UserError
    from pipeline.recipe import Recipe


def run_recipe(path: str, url: str, refit: bool, json_: bool) -> None:
    """Run the recipe in a file.

    Raises:
        UserError: The recipe is not valid, something that it needs is missing, every row of a job failed, …. What was
            computed is printed before.
    """
    from pipeline.commands import output
    from pipeline.execution.node_check import check_absolute
    from pipeline.execution.runner import check_models
    from pipeline.recipe import load_recipe

    recipe = load_recipe(path)
    clips = recipe.clips_of(url)
    for part, where in filter(None, ((recipe, url), clips)):
        check_absolute(part, where)
        check_models(part, where)
    result, failure = _run(recipe, url, refit, json_)
    if clips and failure is None:
        result["clips"], failure = _run(*clips, refit, json_)
    if json_:
        output.print_json(result)
    if failure:
        raise failure


def _run(recipe: Recipe, url: str, refit: bool, json_: bool) -> tuple[dict[str, Any], UserError | None]:
    """Run one recipe; return its results as JSON, and the failure that the command ends with."""
    from pipeline.commands import output
    from pipeline.commands.publish import publish_run
    from pipeline.commands.results import print_results
    from pipeline.execution.index import open_pool
    from pipeline.execution.index_job import build_index
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import preload, prepare, run_stages

    with output.working_on(url):
        with LocalWorkers() as local:
            preload(recipe, url, local)
            listing = open_pool(recipe.pool, url)
            check_nodes(recipe, url, listing)
            opened = prepare(recipe, url, refit)
            jobs = [build_index(opened, recipe.pool, listing, output.say, local)]
            output.announce(jobs[-1])
            for done in run_stages(opened, recipe, refit=refit, local=local):
                jobs.append(done)
                output.announce(done)
        publish = partial(publish_run, url, None, recipe.publish) if recipe.publish else None
        return print_results(url, jobs, json_, publish)
