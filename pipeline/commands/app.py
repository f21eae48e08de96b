"""The command line. Heavy modules are imported inside the commands, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import is_bug
from core.secrets import redact
from core.text import printable
from pipeline.commands.caption import caption_app
from pipeline.commands.chat import chat_app
from pipeline.commands.evaluate import eval_app
from pipeline.commands.filter import filter_app
from pipeline.commands.inspect import view_app
from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.retry import retry_app
from pipeline.commands.schema import schema_app
from pipeline.commands.stage import stage_app
from pipeline.commands.train import train_app

if TYPE_CHECKING:
    from pipeline.pools import Pool
    from pipeline.publishing.publish import Published
    from pipeline.recipe_file import Publish

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a raw pool of web images to a VL3-Syn7M-grade training set.",
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
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe (YAML)")],
    run_: RunOption,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train the clusters anew, on what the pool has become")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Run a whole recipe: index, stages and publication. Stored results are not computed again."""
    from pipeline.commands import output
    from pipeline.execution.index import open_pool
    from pipeline.execution.runner import build_index, check_models, prepare, run_stages
    from pipeline.recipe import load_recipe

    checked = load_recipe(recipe)
    check_models(checked, run_)
    listing = open_pool(checked.pool, run_)
    opened = prepare(checked, run_, refit)
    jobs = [build_index(opened, checked.pool, listing, output.say)]
    output.announce(jobs[-1])
    for done in run_stages(opened, checked, refit=refit):
        jobs.append(done)
        output.announce(done)
    how = checked.publish
    output.finish(run_, jobs, json_, (lambda: _publish(run_, None, how)) if how else None)


@app.command()
def publish(
    run_: RunOption,
    out: Annotated[str | None, typer.Option(help="Where the dataset goes: a path or URL; default RUN/shards")] = None,
    subset: Annotated[
        list[str] | None, typer.Option(help="short or detailed, both by giving it twice; default one table with both")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="parquet (default) or webdataset")] = None,
    rows_per_shard: Annotated[int | None, typer.Option(help="Images of a shard; default 5000")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order, which is random; default 0")] = None,
    json_: JsonOption = False,
) -> None:
    """Write the kept images into shards with a dataset card. Images that are already in shards stay unchanged."""
    from core.settings import parse
    from manifests import open_run
    from pipeline.commands import output
    from pipeline.commands.outcome import nothing_published
    from pipeline.recipe_file import Publish

    given = {"subsets": subset, "format": format_, "rows_per_shard": rows_per_shard, "seed": seed}
    recipe = open_run(run_).recipe.get("publish") or {}
    how = parse(Publish, {**recipe, **{k: v for k, v in given.items() if v is not None}}, "publish")
    done = _publish(run_, out, how)
    output.print_json(asdict(done)) if json_ else output.print_published(done)
    if failure := nothing_published(done):
        raise failure


def _publish(run_: str, out: str | None, how: Publish) -> Published:
    from manifests import open_run
    from manifests.indexing import refuse_unfinished, remark
    from manifests.storage import Folder
    from pipeline.commands import output
    from pipeline.execution.runner import recipe_of
    from pipeline.publishing.publish import publish as write_shards

    opened = open_run(run_)
    refuse_unfinished(opened)
    if said := remark(opened):
        output.say(said)
    where = out or f"{run_.rstrip('/')}/shards"
    return write_shards(opened, recipe_of(opened), how, Folder.at(where), where)


@app.command()
def index(
    run_: RunOption,
    images: Annotated[str | None, typer.Option(help="A folder of images, searched recursively")] = None,
    tars: Annotated[str | None, typer.Option(help="A glob of webdataset tars")] = None,
    parquet: Annotated[str | None, typer.Option(help="A glob of Parquet files with an image column")] = None,
    img2dataset: Annotated[str | None, typer.Option(help="An output folder of img2dataset")] = None,
    urls: Annotated[str | None, typer.Option(help="A glob of Parquet files with URLs and metadata, as COYO's")] = None,
    image: Annotated[str | None, typer.Option(help="Parquet: name of the image column")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Parquet, URLs: an integer column that identifies the image")
    ] = None,
    alt_text: Annotated[
        str | None, typer.Option(help="Parquet, URLs: the column with alt text; tars: a .json key or a file ending")
    ] = None,
    max_image_bytes: Annotated[
        int | None, typer.Option(help="Parquet: longer cells are errors; default 268435456 (256 MiB)")
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links of a local pool that lead out of it")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Read the header of every image of a pool. Every image gets one row, broken images too.

    Without a pool, the run's own pool is read again, and new images are added.
    """
    from dataclasses import replace

    from manifests import open_run
    from pipeline.commands import output
    from pipeline.execution.index import open_pool
    from pipeline.execution.runner import build_index, prepare, recipe_of
    from pipeline.recipe import Recipe

    given = {"images": images, "tars": tars, "parquet": parquet, "img2dataset": img2dataset, "urls": urls}
    given |= {"image": image, "id": id_, "alt_text": alt_text}
    if max_image_bytes is not None:
        given["max_image_bytes"] = str(max_image_bytes)
    if follow_links:
        given["follow_links"] = "true"
    if any(given.values()):
        pool = _pool(given)
        before = recipe_of(open_run(run_)) if _is_run(run_) else Recipe(os.path.basename(run_.rstrip("/")), pool, ())
        checked = replace(before, pool=pool)
    else:
        checked = recipe_of(open_run(run_))
    listing = open_pool(checked.pool, run_)
    done = build_index(prepare(checked, run_), checked.pool, listing, output.say)
    output.announce(done)
    output.finish(run_, [done], json_)


app.add_typer(filter_app, name="filter")
app.add_typer(caption_app, name="caption")
app.add_typer(stage_app)
app.add_typer(view_app)
app.add_typer(retry_app)
app.add_typer(train_app)
app.add_typer(eval_app)
app.add_typer(chat_app)
app.add_typer(schema_app)


@app.command()
def doctor(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes to check; default recipes/*.yaml")] = None,
    json_: JsonOption = False,
) -> None:
    """Check what this machine has installed, and what the recipes need that is missing."""
    from pipeline.commands import output
    from pipeline.commands.doctor import examine

    findings = examine(recipes)
    if json_:
        output.print_json([f.as_json() for f in findings])
    else:
        output.print_rows("doctor", ("what", "state", "found"), [(f.what, f.state, f.found) for f in findings])
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)


def _pool(given: dict[str, str | None]) -> Pool:
    from core.secrets import refuse_credentials_within
    from core.settings import parse
    from pipeline.pools import Pool

    refuse_credentials_within(given, "pool")
    return parse(Pool, {name: value for name, value in given.items() if value}, "pool")


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
