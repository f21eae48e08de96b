"""The command line. Heavy modules are imported inside the commands, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError, is_bug
from core.secrets import redact
from core.text import printable
from pipeline.commands.caption import caption_app
from pipeline.commands.chat import chat_app
from pipeline.commands.compact import compact_app
from pipeline.commands.download import download_app
from pipeline.commands.evaluate import eval_app
from pipeline.commands.export import export_app
from pipeline.commands.filter import filter_app
from pipeline.commands.init import init_app
from pipeline.commands.inspect import view_app
from pipeline.commands.look import look_app
from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.report import report_app
from pipeline.commands.retry import retry_app
from pipeline.commands.schema import schema_app
from pipeline.commands.serve import serve_app
from pipeline.commands.stage import stage_app
from pipeline.commands.stopping import resumable
from pipeline.commands.train import train_app

if TYPE_CHECKING:
    from pipeline.pools import Pool
    from pipeline.publishing.publish import Published
    from pipeline.recipe import Recipe
    from pipeline.recipe_file import Publish

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a captioned training set like VL3-Syn7M from a pool of web images, and train VideoLLaMA3 on it.",
)


def _version(wanted: bool) -> None:
    if wanted:
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
@resumable()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe: a YAML file")],
    run_: RunOption,
    refit: Annotated[bool, typer.Option("--refit", help="Train the clusters again, on the present images")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print rows, stages, models and disk; compute and write nothing")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --dry-run: run a sample in a temporary directory, to estimate time")
    ] = False,
    sample: Annotated[int | None, typer.Option(min=2, help="With --measure: images of the sample; default 64")] = None,
    json_: JsonOption = False,
) -> None:
    """Run a whole recipe: index, stages, publication. Stored results are not computed again.

    Examples:

        vl3syn run recipe.yaml --run RUN

        vl3syn run recipe.yaml --run RUN --dry-run

        vl3syn run recipe.yaml --run RUN --dry-run --measure
    """
    if measure and not dry_run:
        raise typer.BadParameter("give --dry-run too", param_hint="--measure")
    if sample and not measure:
        raise typer.BadParameter("give --dry-run --measure too", param_hint="--sample")
    if dry_run:
        from pipeline.commands.dry_run import dry_run as print_plan

        print_plan(recipe, run_, refit, measure, sample, json_)
        return
    from pipeline.commands import output
    from pipeline.execution.index import open_pool
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.node_check import check_absolute, check_nodes
    from pipeline.execution.runner import build_index, check_models, preload, prepare, run_stages
    from pipeline.recipe import load_recipe

    checked = load_recipe(recipe)
    check_absolute(checked, run_)
    check_models(checked, run_)
    with output.working_on(run_):
        with LocalWorkers() as local:
            preload(checked, run_, local)
            listing = open_pool(checked.pool, run_)
            check_nodes(checked, run_, listing)
            opened = prepare(checked, run_, refit)
            jobs = [build_index(opened, checked.pool, listing, output.say, local)]
            output.announce(jobs[-1])
            for done in run_stages(opened, checked, refit=refit, local=local):
                jobs.append(done)
                output.announce(done)
        how = checked.publish
        output.finish(run_, jobs, json_, (lambda: _publish(run_, None, how)) if how else None)


@app.command()
@resumable()
def publish(
    run_: RunOption,
    out: Annotated[str | None, typer.Option(help="Folder of the dataset: a path or URL; default RUN/shards")] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="A subset of short or of detailed captions; can be repeated. Default: all in one"),
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format: parquet (default) or webdataset")] = None,
    rows_per_shard: Annotated[int | None, typer.Option(help="Images per shard; default 5000")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random order of images; default 0")] = None,
    json_: JsonOption = False,
) -> None:
    """Write the kept images with their captions into shards, and a dataset card. Existing shards stay unchanged."""
    from core.settings import parse
    from manifests import open_run
    from pipeline.commands import output
    from pipeline.commands.outcome import nothing_published
    from pipeline.recipe_file import Publish

    options = {"subsets": subset, "format": format_, "rows_per_shard": rows_per_shard, "seed": seed}
    settings = {name: value for name, value in options.items() if value is not None}
    how = parse(Publish, {**(open_run(run_).recipe.get("publish") or {}), **settings}, "publish")
    with output.working_on(run_):
        done = _publish(run_, out, how)
    output.print_json(asdict(done)) if json_ else output.print_published(done)
    if failure := nothing_published(done):
        raise failure


def _publish(run_: str, out: str | None, how: Publish) -> Published:
    from manifests.shards import LISTS
    from manifests.storage import Folder
    from pipeline.commands import output
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import recipe_of
    from pipeline.publishing.publish import publish as write_shards

    opened = output.opened(run_)
    recipe, where = recipe_of(opened), out or f"{run_.rstrip('/')}/shards"
    check_nodes(recipe, run_, only=(), out=where)
    folder = Folder.at(where)
    with output.working_on(where, folder.join(LISTS)):  # another run may be published there
        return write_shards(opened, recipe, how, folder, where)


@app.command()
@resumable()
def index(
    run_: RunOption,
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="The pool: a folder, file, glob or URL. Its kind is recognised"),
    ] = None,
    images: Annotated[str | None, typer.Option(help="Pool: a folder of image files, searched recursively")] = None,
    tars: Annotated[str | None, typer.Option(help="Pool: webdataset tars, as a glob")] = None,
    parquet: Annotated[str | None, typer.Option(help="Pool: Parquet files with an image column, as a glob")] = None,
    img2dataset: Annotated[str | None, typer.Option(help="Pool: an output folder of img2dataset")] = None,
    urls: Annotated[
        str | None, typer.Option(help="Pool: lists of image URLs (Parquet, CSV, TSV, JSON Lines, text), as a glob")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Parquet: the image column")] = None,
    id_: Annotated[
        str | None,
        typer.Option("--id", "--id-column", help="Parquet, URLs: an integer column that identifies the image"),
    ] = None,
    url: Annotated[str | None, typer.Option("--url-column", help="URLs: the column with the URL")] = None,
    alt_text: Annotated[
        str | None,
        typer.Option(
            "--alt-text",
            "--caption-column",
            help="The alt text: a column; in tars a key of .json files or a file ending",
        ),
    ] = None,
    max_image_bytes: Annotated[
        int | None, typer.Option(help="Parquet: largest image in bytes; larger ones are errors; default 268435456")
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead out of a local pool")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Read the header of every image of a pool, and store one row per image. Broken images get a row with an error.

    A look at PATH shows its kind: a folder of images, webdataset tars, an output of img2dataset, Parquet files with
    images, lists of image URLs. The options --images to --urls name it. Without either, the run's pool is read again
    and new images are added.

    Examples:

        vl3syn index photos --run RUN

        vl3syn index 's3://bucket/shards/*.tar' --run RUN

        vl3syn index --urls lists --url-column link --run RUN
    """
    from dataclasses import replace

    from manifests import open_run
    from pipeline.commands import output
    from pipeline.execution.index import open_pool
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import build_index, prepare, recipe_of
    from pipeline.recipe import Recipe

    kinds = {"images": images, "tars": tars, "parquet": parquet, "img2dataset": img2dataset, "urls": urls}
    named = {name: where for name, where in kinds.items() if where}
    if path and named:
        raise UserError(f"give {path} or --{next(iter(named))}, not both")
    options = {"image": image, "id": id_, "url": url, "alt_text": alt_text, "max_image_bytes": max_image_bytes}
    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    settings |= {"follow_links": True} if follow_links else {}
    with output.working_on(run_):
        before = recipe_of(open_run(run_)) if _is_run(run_) or not (path or named or settings) else None
        if path:
            pool = _guessed(path, settings, run_, before)
        else:
            pool = _pool({**named, **settings}) if named or settings or before is None else before.pool
        checked = replace(before or Recipe(os.path.basename(run_.rstrip("/")), pool, ()), pool=pool)
        listing = open_pool(checked.pool, run_)
        check_nodes(checked, run_, listing, only=())
        with LocalWorkers() as local:
            done = build_index(prepare(checked, run_), checked.pool, listing, output.say, local)
        output.announce(done)
        output.finish(run_, [done], json_)


app.add_typer(init_app)
app.add_typer(download_app)
app.add_typer(filter_app, name="filter")
app.add_typer(caption_app, name="caption")
app.add_typer(stage_app)
app.add_typer(view_app)
app.add_typer(report_app)
app.add_typer(look_app)
app.add_typer(retry_app)
app.add_typer(compact_app)
app.add_typer(train_app)
app.add_typer(eval_app)
app.add_typer(chat_app)
app.add_typer(serve_app)
app.add_typer(export_app)
app.add_typer(schema_app)


@app.command()
def doctor(
    recipes: Annotated[list[str] | None, typer.Argument(help="The recipes to check; default recipes/*.yaml")] = None,
    json_: JsonOption = False,
) -> None:
    """Check what this machine has installed, and what it lacks for the recipes."""
    from pipeline.commands import output
    from pipeline.commands.doctor import examine

    findings = examine(recipes)
    if json_:
        output.print_json([f.as_json() for f in findings])
    else:
        output.print_rows("doctor", ("what", "state", "found"), [(f.what, f.state, f.found) for f in findings])
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)


def _pool(settings: dict[str, Any]) -> Pool:
    from core.secrets import refuse_credentials_within
    from pipeline.pools.registry import parse_pool

    refuse_credentials_within(settings, "pool")
    try:
        return parse_pool(settings)
    except UserError as error:
        raise UserError(f"pool: {error}") from error


def _guessed(path: str, settings: dict[str, Any], run: str, before: Recipe | None) -> Pool:
    """Return the pool at a path; that of the run if it lies there."""
    from core.secrets import refuse_credentials_within
    from manifests.storage import Folder
    from pipeline.commands import output
    from pipeline.pools.guess import guess_pool
    from pipeline.pools.registry import as_recipe

    refuse_credentials_within({"where": path, **settings}, "pool")
    if before and not settings and as_recipe(before.pool.model_copy(update={"where": path})) == as_recipe(before.pool):
        return before.pool
    pool, what = guess_pool(path, settings, Folder.at(run))
    output.say(f"pool: {what}")
    return pool


def _is_run(url: str) -> bool:
    from manifests.run import RECIPE
    from manifests.storage import Folder

    return Folder.at(url).exists(RECIPE)


def main() -> None:
    """Run the command line. Exit codes: 0 success; 1 failure, with one line on stderr or a bug's traceback; 2 usage.

    VL3SYN_TRACEBACK=1 prints the traceback of every failure.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # users need not know of what Pillow repairs
    try:
        app()
    except Exception as error:
        if os.environ.get("VL3SYN_TRACEBACK") or is_bug(error):
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
        else:
            print(f"vl3syn: {printable(redact(' '.join(str(error).split())))}", file=sys.stderr)
        sys.exit(1)
