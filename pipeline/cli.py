"""The command line. Everything heavy is imported inside a command, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.pool import Pool
    from pipeline.runner import Done

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a raw pool of web images to a VL3-Syn7M-grade training set.",
)
filter_app = typer.Typer(no_args_is_help=True, help="Compute one score over a run, and set the rule on it.")
app.add_typer(filter_app, name="filter")

RunOption = Annotated[str, typer.Option("--run", help="The run directory: a local path, s3://, gs://, …")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]


def _version(asked: bool) -> None:
    if asked:
        from manifests.version import __version__

        print(f"vl3syn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML)")],
    run_: RunOption,
    json_: JsonOption = False,
) -> None:
    """Do everything a recipe says; what is stored already is not computed again."""
    from pipeline.index import open_pool
    from pipeline.recipe import load_recipe
    from pipeline.runner import build_index, prepare, run_stages

    checked = load_recipe(recipe)
    listing = open_pool(checked.pool, run_)
    opened = prepare(checked, run_)
    jobs = [build_index(opened, checked.pool, listing, _say)]
    _announce(jobs[-1])
    for done in run_stages(opened, checked):
        jobs.append(done)
        _announce(done)
    _finish(run_, jobs, json_)


@app.command()
def index(
    run_: RunOption,
    images: Annotated[str | None, typer.Option(help="A folder of images, searched recursively")] = None,
    tars: Annotated[str | None, typer.Option(help="A glob of webdataset tars")] = None,
    parquet: Annotated[str | None, typer.Option(help="A glob of Parquet files with an image column")] = None,
    img2dataset: Annotated[str | None, typer.Option(help="An output folder of img2dataset")] = None,
    image: Annotated[str | None, typer.Option(help="Parquet: name of the image column")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Parquet: an integer column that identifies the image")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Read the header of every image of a pool: one row per image, whatever is wrong with it.

    Without a pool, the run's own pool is read again, and what is new in it is added.
    """
    from dataclasses import replace

    from manifests import open_run
    from pipeline.index import open_pool
    from pipeline.recipe import Recipe
    from pipeline.runner import build_index, prepare, recipe_of

    given = {"images": images, "tars": tars, "parquet": parquet, "img2dataset": img2dataset, "image": image, "id": id_}
    if any(given.values()):
        pool = _pool(given)
        before = recipe_of(open_run(run_)) if _is_run(run_) else Recipe(os.path.basename(run_.rstrip("/")), pool, ())
        checked = replace(before, pool=pool)
    else:
        checked = recipe_of(open_run(run_))
    listing = open_pool(checked.pool, run_)
    done = build_index(prepare(checked, run_), checked.pool, listing, _say)
    _announce(done)
    _finish(run_, [done], json_)


@filter_app.command("aspect-ratio")
def aspect_ratio(
    run_: RunOption,
    max_: Annotated[float | None, typer.Option("--max", help="Largest ratio of longer to shorter side")] = None,
    min_side: Annotated[float | None, typer.Option(help="Smallest shorter side, pixels")] = None,
    max_pixels: Annotated[float | None, typer.Option(help="Largest width × height")] = None,
    json_: JsonOption = False,
) -> None:
    """Aspect ratio and size, from headers. A threshold given here becomes the run's; without any, facts only."""
    _filter(run_, "aspect_ratio", {"max_aspect_ratio": max_, "min_side": min_side, "max_pixels": max_pixels}, json_)


@app.command()
def funnel(run_: RunArgument, json_: JsonOption = False) -> None:
    """Rows seen, kept, dropped and failed per stage, with reasons."""
    from manifests import funnel as count
    from manifests import open_run
    from pipeline import console

    counted = count(open_run(run_))
    console.print_json(counted.as_json()) if json_ else console.print_funnel(counted)


@app.command()
def sweep(
    run_: RunArgument,
    axes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STAGE.RULE=VALUES]...",
            help="aspect_ratio.max=1.5,2,2.5 or aspect_ratio.max=1.5:3:7 (from:to:points)",
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """What other thresholds would keep, jointly, without computing anything.

    Without axes: how the stored scores are spread, to choose thresholds by.
    """
    import polars as pl

    from manifests import open_run
    from manifests.sweep import spread
    from manifests.sweep import sweep as try_all
    from pipeline import console

    opened = open_run(run_)
    table = try_all(opened, _axes(axes)) if axes else spread(opened)
    if json_:
        console.print_json(table.to_dicts())
    else:
        rows = opened.index.scan().select(pl.len()).collect().item()
        title = f"kept of {rows:,} rows" if axes else "stored scores"
        console.print_rows(title, table.columns, table.rows())


@app.command()
def explain(
    run_: RunArgument,
    key: Annotated[str, typer.Argument(help="The image's key, shard/key, or id")],
    json_: JsonOption = False,
) -> None:
    """Everything known of one image, and why it was kept or dropped."""
    from manifests import open_run
    from manifests.explain import explain as account_of
    from pipeline import console

    accounts = account_of(open_run(run_), key)
    if json_:
        console.print_json([a.as_json() for a in accounts])
        return
    for account in accounts:
        console.print_account(account)


@app.command()
def doctor(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes to check; default recipes/*.yaml")] = None,
    json_: JsonOption = False,
) -> None:
    """What this machine has, and what recipes would need that it has not."""
    from pipeline import console
    from pipeline.doctor import examine

    findings = examine(recipes)
    if json_:
        console.print_json([f.as_json() for f in findings])
    else:
        console.print_rows("doctor", ("what", "state", "found"), [(f.what, f.state, f.found) for f in findings])
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)


def _filter(url: str, name: str, keep: dict[str, float | None], json_: bool) -> None:
    """Set rules of one stage in the run's recipe (adding the stage at the end), then compute it."""
    from manifests import open_run
    from pipeline.recipe import parse_recipe
    from pipeline.runner import prepare, run_stages

    recipe = dict(open_run(url).recipe)
    stages = [dict(entry) for entry in recipe.get("stages") or []]
    entry = next((s for s in stages if s["stage"] == name), None)
    if entry is None:
        entry = {"stage": name}
        stages.append(entry)
    entry["keep"] = {**entry.get("keep", {}), **{rule: value for rule, value in keep.items() if value is not None}}
    checked = parse_recipe({**recipe, "stages": stages}, f"{url}: {name}")
    jobs = list(run_stages(prepare(checked, url), checked, only=name))
    for done in jobs:
        _announce(done)
    _finish(url, jobs, json_)


def _pool(given: dict[str, str | None]) -> Pool:
    from pipeline.recipe import checked_pool

    return checked_pool({name: value for name, value in given.items() if value}, "pool")


def _is_run(url: str) -> bool:
    from manifests.run import RECIPE
    from manifests.storage import Folder

    return Folder.at(url).exists(RECIPE)


def _axes(texts: list[str]) -> dict[str, list[float]]:
    axes: dict[str, list[float]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in axes:
            raise ValueError(f"{name} is given twice; list all of its values after one =")
        try:
            axes[name] = _points(values) if ":" in values else [float(v) for v in values.split(",")]
        except ValueError as error:
            raise ValueError(f"{text}: give thresholds as STAGE.RULE=1,2,3 or STAGE.RULE=from:to:points") from error
    return axes


def _points(values: str) -> list[float]:
    start, stop, points = values.split(":")
    step = (float(stop) - float(start)) / max(int(points) - 1, 1)
    return [round(float(start) + i * step, 10) for i in range(int(points))]


def _say(text: str) -> None:
    from pipeline import console

    console.say(text)


def _announce(done: Done) -> None:
    what = f"{done.computed:,} rows in {done.seconds:.1f} s" if done.computed else "nothing to compute"
    _say(f"{done.stage}: {what}, {done.stored:,} stored before")


def _finish(url: str, jobs: list[Done], json_: bool) -> None:
    from dataclasses import asdict

    from manifests import funnel as count
    from manifests import open_run
    from pipeline import console

    counted = count(open_run(url))
    if json_:
        console.print_json({"jobs": [asdict(job) for job in jobs], "funnel": counted.as_json()})
        return
    console.print_done(jobs)
    console.print_funnel(counted)


def main() -> None:
    """Exit codes: 0 done; 1 failed, one line on stderr; 2 wrong usage. VL3SYN_TRACEBACK=1 shows where it failed."""
    try:
        app()
    except Exception as error:
        # What a user, a disk or a network can do wrong; anything else is our bug and shows its traceback.
        theirs = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("polars")
        if os.environ.get("VL3SYN_TRACEBACK") or not theirs:
            raise
        print(f"vl3syn: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
