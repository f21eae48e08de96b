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
    from pipeline.commands.outcome import total_failure

    given = {"min_score": min_score, "min_gap": min_gap, "longest": longest, "trim": trim, "snap": snap}
    url, cuts = _cut(run_, {name: value for name, value in given.items() if value is not None}, min_seconds)
    of_clips, of_films = open_run(url), open_run(run_)
    _say_what_is_pending(of_clips)
    seconds = _seconds(of_clips, of_films, films)
    if json_:
        output.print_json(seconds.to_dicts())
    else:
        _print_seconds(seconds)
    if failure := total_failure(of_films, of_films.funnel(), cuts):
        raise failure
    if not json_:
        output.say(f"the run of the clips is {url}: filter, caption and publish it like any run")


def _cut(run: str, settings: dict[str, Any], min_seconds: float | None) -> tuple[str, list[str]]:
    """Find the cuts, index the clips, and set the rule on their length.

    Returns the run of the clips, and the names of the stages that found the cuts.

    All settings are checked first: cuts may take hours.
    """
    from manifests.run import CLIPS
    from pipeline.commands import output
    from pipeline.commands.stage import set_stages

    films, url = _films(run), f"{run.rstrip('/')}/{CLIPS}"
    rule = {"stage": "clip_length", "keep": {"min_seconds": min_seconds}}
    entries = [] if min_seconds is None else [rule]
    _checked_recipe(run, url, settings, entries)
    cuts = _find_cuts(run, films)
    with output.working_on(url):
        _index(url, _checked_recipe(run, url, settings, entries))  # other commands may have changed it meanwhile
        if entries:
            for job in set_stages(url, entries):
                output.announce(job)
    return url, cuts


def _say_what_is_pending(run: Run) -> None:
    """Say how clips that are new get the facts of the stages that others have already."""
    from manifests.run import RECIPE
    from pipeline.commands import output

    if pending := sum(stage.pending for stage in run.funnel().stages):
        again = f"vl3syn run {run.url}/{RECIPE} --run {run.url}"
        output.say(f"{pending:,} clips are new to a stage of the run of clips: `{again}` computes them")


def _films(run: str) -> Recipe:
    """Return the recipe of a run of films.

    Raises:
        UserError: There is no run, its index is not finished, or it is not one of films.
    """
    from pipeline.commands import output
    from pipeline.execution.runner import recipe_of

    recipe = recipe_of(output.opened(run))
    if not recipe.pool.has_films or "film_id" in recipe.pool.index_schema.names:
        raise UserError(f"{run} is not a run of films: make one, as in `vl3syn index --videos DIR --run {run}`")
    return recipe


def _find_cuts(run: str, films: Recipe) -> list[str]:
    """Compute the stage that finds cuts, for films that lack its facts; add it to the recipe if it is missing."""
    from pipeline.commands import output
    from pipeline.commands.stage import set_stages
    from pipeline.pools.clips import CUTS

    named = [step.stage.name for step in films.steps if set(CUTS) <= set(step.stage.writes.names)]
    with output.working_on(run):
        jobs = set_stages(run, [{"stage": name} for name in named or ["scenes"]])
    for job in jobs:
        output.announce(job)
    return [job.stage for job in jobs]


def _checked_recipe(run: str, url: str, settings: dict[str, Any], entries: list[dict[str, Any]]) -> Recipe:
    """Return the recipe of the run of clips, with other settings of its pool. Nothing is written.

    Raises:
        UserError: A setting or one of the `entries` is not valid, or the directory cannot be used.
    """
    from manifests import open_run
    from manifests.run import RECIPE
    from manifests.storage import Folder
    from pipeline.commands.stage import with_stages
    from pipeline.execution.runner import check_run
    from pipeline.recipe import parse_recipe

    # Its publications and their records have the name: "clips" would be that of all.
    written: dict[str, Any] = {"name": open_run(run).recipe.get("name") or "clips", "pool": {}}
    if Folder.at(url).exists(RECIPE):
        written = dict(open_run(url).recipe)
    written["pool"] = {**written["pool"], "clips": run, **settings}
    recipe = parse_recipe(written, url)
    check_run(recipe, url)
    if entries:
        with_stages(written, entries, url)
    return recipe


def _index(url: str, recipe: Recipe) -> None:
    from pipeline.commands import output
    from pipeline.execution.index import open_pool
    from pipeline.execution.index_job import build_index
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.runner import prepare

    with LocalWorkers() as local:
        listing = open_pool(recipe.pool, url)
        output.announce(build_index(prepare(recipe, url), recipe.pool, listing, output.say, local))


def _seconds(clips: Run, films: Run, by_film: bool) -> pl.DataFrame:
    """Return the seconds of films by fate; with `by_film`, of each film by its name."""
    import polars as pl

    from manifests.clip_seconds import clip_seconds

    seconds = clip_seconds(clips, films, by_film)
    if not by_film:
        return seconds
    names = _names(clips, films)
    return seconds.select(
        pl.col("film_id").replace_strict(names, return_dtype=pl.String).alias("film"), pl.exclude("film_id")
    ).sort("film", maintain_order=True)


def _names(clips: Run, films: Run) -> dict[int, str]:
    """Return the names of films by id: those that their clips have as shard, else as they would have."""
    from pipeline.pools.clips import film_path

    rows = films.index.scan(["id", "shard", "key"]).collect(engine="streaming")
    names = {id_: film_path(shard, key) for id_, shard, key in rows.select("id", "shard", "key").iter_rows()}
    of_clips = clips.index.scan(["film_id", "shard"]).drop_nulls().unique().collect(engine="streaming")
    return names | dict(of_clips.select("film_id", "shard").iter_rows())


def _print_seconds(seconds: pl.DataFrame) -> None:
    from pipeline.commands import output

    output.print_rows("what became of the seconds of the films", seconds.columns, list(seconds.iter_rows()))
