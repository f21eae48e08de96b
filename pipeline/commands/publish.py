"""`vl3syn publish`: the kept images with their captions, as shards."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from pipeline.publishing.publish import Published
    from pipeline.recipe_file import Publish

publish_app = typer.Typer()


@publish_app.command()
@resumable()
def publish(
    run_: RunOption,
    out: Annotated[str | None, typer.Option(help="Folder of the dataset: a path or URL; default RUN/shards")] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(
            help="A subset of captions: short, detailed or ocr; can be repeated. Default: short and detailed in one"
        ),
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
        done = publish_run(run_, out, how)
    output.print_json(asdict(done)) if json_ else output.print_published(done)
    if failure := nothing_published(done):
        raise failure


def publish_run(run_: str, out: str | None, how: Publish) -> Published:
    """Publish a run into `out`, by default RUN/shards."""
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
