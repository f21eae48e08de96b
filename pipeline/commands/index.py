"""`vl3syn index`: one row per image or film of a pool, from headers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from pipeline.pools import Pool
    from pipeline.recipe import Recipe

index_app = typer.Typer()


@index_app.command()
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
    videos: Annotated[
        str | None, typer.Option(help="Pool: films, as a folder or glob of film files, tars or Parquet files")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Parquet: the image column")] = None,
    video: Annotated[str | None, typer.Option(help="Videos: the film column of Parquet files")] = None,
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
    """Read the header of every image or film of a pool, and store one row for each; of a broken one with an error.

    A look at PATH shows its kind: a folder of images, webdataset tars, an output of img2dataset, Parquet files with
    images, lists of image URLs, films. The options --images to --videos name it. Without either, the run's pool is read
    again and new images or films are added.

    Examples:

        vl3syn index photos --run RUN

        vl3syn index 's3://bucket/shards/*.tar' --run RUN

        vl3syn index --urls lists --url-column link --run RUN

        vl3syn index --videos films --run RUN
    """
    from dataclasses import replace

    from manifests import open_run
    from pipeline.commands import output
    from pipeline.commands.results import finish
    from pipeline.execution.index import open_pool
    from pipeline.execution.index_job import build_index
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import prepare, recipe_of
    from pipeline.recipe import Recipe

    kinds = {
        "images": images,
        "tars": tars,
        "parquet": parquet,
        "img2dataset": img2dataset,
        "urls": urls,
        "videos": videos,
    }
    named = {name: where for name, where in kinds.items() if where}
    if path and named:
        raise UserError(f"give {path} or --{next(iter(named))}, not both")
    options = {
        "image": image,
        "video": video,
        "id": id_,
        "url": url,
        "alt_text": alt_text,
        "max_image_bytes": max_image_bytes,
    }
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
        finish(run_, [done], json_)


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
