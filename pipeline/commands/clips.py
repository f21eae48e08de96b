"""`vl3syn clips`: cut the films of a run into clips, and say what became of their seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    import polars as pl

    from manifests.run import Run
    from pipeline.recipe import Recipe

clips_app = typer.Typer()


@clips_app.command()
@resumable()
def clips(
    run_: RunOption,
    min_score: Annotated[float | None, typer.Option(help="Smallest score of a cut, 0 to 100; default 4")] = None,
    min_gap: Annotated[
        float | None, typer.Option(help="Smallest distance of two cuts, in seconds; default 0.6")
    ] = None,
    longest: Annotated[float | None, typer.Option(help="Longest clip in seconds; longer ones are divided")] = None,
    trim: Annotated[float | None, typer.Option(help="Seconds taken off both ends of each clip; default 0")] = None,
    snap: Annotated[str | None, typer.Option(help="key: clips begin and end at key frames; none (default)")] = None,
    min_seconds: Annotated[float | None, typer.Option(help="Keep clips of at least this length, in seconds")] = None,
    films: Annotated[bool, typer.Option("--films", help="Print the seconds of each film")] = False,
    json_: JsonOption = False,
) -> None:
    """Cut the films of a run into clips, at its scene cuts. The run of the clips is RUN/clips, for all commands.

    The cuts are found first, if the run has none. With other settings films are cut anew without decoding them; clips
    that stay the same keep their facts.

    Examples:

        vl3syn index --videos films --run RUN

        vl3syn clips --run RUN --min-seconds 2

        vl3syn filter motion --run RUN/clips --min 0.01
    """
    from manifests import open_run
    from pipeline.commands import output

    given = {"min_score": min_score, "min_gap": min_gap, "longest": longest, "trim": trim, "snap": snap}
    url = _cut(run_, {name: value for name, value in given.items() if value is not None}, min_seconds)
    of_clips = open_run(url)
    _say_what_is_pending(of_clips)
    if json_:
        output.print_json(_seconds(of_clips, films).to_dicts())
        return
    _print_seconds(of_clips, films)
    output.say(f"the run of the clips is {url}: filter, caption and publish it like any run")


def _cut(run: str, settings: dict[str, Any], min_seconds: float | None) -> str:
    """Find the cuts, index the clips, and set the rule on their length; return the run of the clips."""
    from manifests.run import CLIPS
    from pipeline.commands import output
    from pipeline.commands.stage import set_stages

    _find_cuts(run)
    url = f"{run.rstrip('/')}/{CLIPS}"
    with output.working_on(url):
        _index(url, _recipe(run, url, settings))
        if min_seconds is not None:
            for job in set_stages(url, [{"stage": "clip_length", "keep": {"min_seconds": min_seconds}}]):
                output.announce(job)
    return url


def _say_what_is_pending(run: Run) -> None:
    """Say how clips that are new get the facts of the stages that others have already."""
    from manifests.run import RECIPE
    from pipeline.commands import output

    if pending := sum(stage.pending for stage in run.funnel().stages):
        again = f"vl3syn run {run.url}/{RECIPE} --run {run.url}"
        output.say(f"{pending:,} clips are new to a stage of the run of clips: `{again}` computes them")


def _find_cuts(run: str) -> None:
    """Compute the stage that finds cuts, for films that lack its facts; add it to the recipe if it is missing."""
    from pipeline.commands import output
    from pipeline.commands.stage import set_stages
    from pipeline.execution.runner import recipe_of
    from pipeline.pools.clips import CUTS

    recipe = recipe_of(output.opened(run))
    if not recipe.pool.has_films or "film_id" in recipe.pool.index_schema.names:
        raise UserError(f"{run} is not a run of films: make one, as in `vl3syn index --videos DIR --run {run}`")
    named = [step.stage.name for step in recipe.steps if set(CUTS) <= set(step.stage.writes.names)]
    with output.working_on(run):
        for job in set_stages(run, [{"stage": name} for name in named or ["scenes"]]):
            output.announce(job)


def _recipe(run: str, url: str, settings: dict[str, Any]) -> Recipe:
    """Return the recipe of the run of clips, with other settings of its pool."""
    from manifests import open_run
    from manifests.run import RECIPE
    from manifests.storage import Folder
    from pipeline.recipe import parse_recipe

    # Its publications and their records have the name: "clips" would be that of all.
    written: dict[str, Any] = {"name": open_run(run).recipe.get("name") or "clips", "pool": {}}
    if Folder.at(url).exists(RECIPE):
        written = dict(open_run(url).recipe)
    pool = {**written["pool"], "clips": run, **settings}
    return parse_recipe({**written, "pool": pool}, url)


def _index(url: str, recipe: Recipe) -> None:
    from pipeline.commands import output
    from pipeline.execution.index import open_pool
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.runner import build_index, prepare

    with LocalWorkers() as local:
        listing = open_pool(recipe.pool, url)
        output.announce(build_index(prepare(recipe, url), recipe.pool, listing, output.say, local))


def _seconds(run: Run, films: bool) -> pl.DataFrame:
    """Return the seconds of films by fate; with `films`, of each film by its name."""
    import polars as pl

    from manifests.clip_seconds import clip_seconds

    seconds = clip_seconds(run, by_film=films)
    if not films:
        return seconds
    names = run.index.scan(["film_id", "shard"]).unique("film_id").collect(engine="streaming")
    return (
        names.join(seconds, on="film_id").select(pl.col("shard").alias("film"), "fate", "clips", "seconds").sort("film")
    )


def _print_seconds(run: Run, films: bool) -> None:
    from pipeline.commands import output

    rows = [list(row) for row in _seconds(run, films).iter_rows()]
    columns = (*(("film",) if films else ()), "fate", "clips", "seconds")
    output.print_rows("what became of the seconds of the films", columns, rows)
