"""`vl3syn publish`: the kept images with their captions, as shards; and images that are removed from shards again."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import JsonOption
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from manifests import Run
    from manifests.removals import Removals
    from pipeline.publishing.clips.publish import PublishedClips
    from pipeline.publishing.publish import Published
    from pipeline.publishing.takedown import Orders, TakenDown
    from pipeline.recipe import Recipe
    from pipeline.recipe_file import Publish, PublishClips

publish_app = typer.Typer()

_SHOWN = 10  # requests or images of a kind that are named on the terminal


@publish_app.command()
@resumable()
def publish(
    run_: Annotated[
        str | None, typer.Option("--run", help="The run directory; --remove works on --out without it")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the dataset: a path or URL; default RUN/shards")] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(
            help="A subset; can be repeated: short, detailed, ocr; of clips captions, questions, grounding, stream. "
            "Default: short and detailed in one; of clips, all that the run has facts for"
        ),
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="Format: parquet (default) or webdataset")] = None,
    rows_per_shard: Annotated[
        int | None, typer.Option(help="Images per shard, default 5000; or clips, default 1000")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random order of images; default 0")] = None,
    films: Annotated[
        str | None, typer.Option(help="What becomes of the films of clips: reference (default), copy or encode")
    ] = None,
    media: Annotated[
        str | None, typer.Option(help="With --films reference: the folder that paths of films are relative to")
    ] = None,
    removed_before: Annotated[
        list[str] | None,
        typer.Option(help="A publication or run whose removed images must not be in this one; can be repeated"),
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option(help="Remove images, publish none: a file with an id, SHA-256, URL or key a line, or -"),
    ] = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="With --remove: go on if lines name no image here")
    ] = False,
    with_reasons: Annotated[
        bool, typer.Option("--with-reasons", help="With --remove: publish the reasons in the card")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write the kept images with their captions into shards, and a dataset card. Existing shards stay unchanged.

    Of a run of clips it writes records to train on: captions, questions, times of events, streams.

    With --remove LIST it takes images out of shards instead, and keeps them out of all that is published later. A line
    of the list may say which kind of name it has (id:, sha256:, url:, key:), and a reason behind a tab or ` #`.

    Examples:

        vl3syn publish --run RUN --out OUT

        vl3syn publish --run RUN/clips --out OUT --films copy

        vl3syn publish --out OUT --remove takedown.txt
    """
    from core.settings import parse
    from manifests import open_run
    from pipeline.commands import output
    from pipeline.commands.outcome import nothing_published
    from pipeline.commands.publication import print_publication
    from pipeline.execution.runner import recipe_of
    from pipeline.recipe_file import publish_settings

    options = {"subsets": subset, "format": format_, "rows_per_shard": rows_per_shard, "seed": seed}
    options |= {"films": films, "media": media}
    settings = {name: value for name, value in options.items() if value is not None}
    if remove is not None:
        if settings or removed_before:
            raise typer.BadParameter("publishes nothing: leave the options of a publication", param_hint="--remove")
        taken = _remove(_orders(remove, missing_ok, with_reasons), run_, out)
        output.print_json(asdict(taken)) if json_ else _print_taken_down(taken)
        return
    if missing_ok or with_reasons:
        raise typer.BadParameter("give --remove too", param_hint="--missing-ok" if missing_ok else "--with-reasons")
    if run_ is None:
        raise typer.BadParameter("name the run that is published", param_hint="--run")
    opened = open_run(run_)
    kind = publish_settings(recipe_of(opened).pool)
    how = parse(kind, {**(opened.recipe.get("publish") or {}), **settings}, "publish")
    with output.working_on(run_):
        done = publish_run(run_, out, how, _removals(removed_before or ()))
    pending = sum(stage.pending for stage in opened.funnel().stages)
    output.print_json({**asdict(done), "pending": pending}) if json_ else print_publication(done)
    if pending:
        noun = recipe_of(opened).pool.noun
        output.say(f"{pending:,} {noun}s wait for a stage and are not published: `vl3syn run` computes them")
    if failure := nothing_published(done):
        raise failure


def publish_run(
    run_: str, out: str | None, how: Publish | PublishClips, removed_before: Removals | None = None
) -> Published | PublishedClips:
    """Publish a run into `out`, by default RUN/shards: images with captions, or records of clips."""
    from manifests.shards import LISTS
    from manifests.storage import Folder
    from pipeline.commands import output
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import recipe_of
    from pipeline.publishing.clips.publish import publish_clips
    from pipeline.publishing.publish import publish as write_shards
    from pipeline.recipe_file import PublishClips

    opened = output.opened(run_)
    recipe, where = recipe_of(opened), out or f"{run_.rstrip('/')}/shards"
    check_nodes(recipe, run_, only=(), out=where)
    folder = Folder.at(where)
    with output.working_on(where, folder.join(LISTS)):  # another run may be published there
        if isinstance(how, PublishClips):
            return publish_clips(opened, recipe, how, folder, where, removed_before, _films_of(recipe))
        return write_shards(opened, recipe, how, folder, where, removed_before)


def _films_of(recipe: Recipe) -> Run | None:
    """Return the run of the films that the clips of a run are pieces of; None if it is not there."""
    from manifests import open_run
    from manifests.run import RECIPE
    from manifests.storage import Folder

    where = recipe.pool.where
    return open_run(where) if recipe.pool.kind == "clips" and Folder.at(where).exists(RECIPE) else None


def _removals(publications: list[str] | tuple[str, ...]) -> Removals:
    from manifests.removals import united
    from pipeline.publishing.takedown import removals_at

    return united(map(removals_at, publications))


def _orders(path: str, missing_ok: bool, with_reasons: bool) -> Orders:
    from core.errors import reading
    from pipeline.publishing.removal_requests import parse_requests
    from pipeline.publishing.takedown import Orders

    where = "standard input" if path == "-" else path
    with reading(where), nullcontext(sys.stdin) if path == "-" else open(path, encoding="utf-8-sig") as lines:
        return Orders(parse_requests(lines, where), where, missing_ok, with_reasons)


def _remove(orders: Orders, run_: str | None, out: str | None) -> TakenDown:
    from manifests import open_run
    from manifests.shards import LISTS
    from manifests.storage import Folder
    from pipeline.commands import output
    from pipeline.publishing.publication import stored_publication
    from pipeline.publishing.takedown import take_down

    if out is None and run_ is None:
        raise typer.BadParameter("name the publication with --out, or its run with --run", param_hint="--remove")
    where = out or f"{str(run_).rstrip('/')}/shards"
    folder, run = Folder.at(where), open_run(run_) if run_ else None
    if out is not None:  # a mistyped path must not look like a takedown that was done
        stored_publication(folder, where)
    with output.working_on(run_) if run_ else nullcontext(), output.working_on(where, folder.join(LISTS)):
        return take_down(orders, folder, where, run)


def _print_taken_down(taken: TakenDown) -> None:
    from pipeline.commands import output

    count, shards = len(taken.shards), "shard" if len(taken.shards) == 1 else "shards"
    images = "image" if taken.images == 1 else "images"
    written = f", {count:,} {shards} written anew" if count else "; no shard had to be written"
    generation = f" (generation {taken.generation})" if taken.generation else ""
    output.out.print(f"removed: {taken.images:,} {images}{written}{generation}", style="bold", markup=False)
    if taken.kept_out:
        output.say(f"kept out: {taken.kept_out:,} images of the run that were not published here")
    for id_, digest in list(taken.duplicates.items())[:_SHOWN]:
        output.say(f"removed too: {id_}, which has the same bytes as an image of the list (sha256 {digest})")
    if len(taken.duplicates) > _SHOWN:
        output.say(f"removed too: {len(taken.duplicates):,} images in all with the bytes of an image of the list")
    if taken.before:
        output.say(f"{len(taken.before):,} lines of the list were met before")
    for request in taken.unknown[:_SHOWN]:
        output.say(f"names no image here: {request}")
    if taken.unknown:
        output.say(
            f"{len(taken.unknown):,} lines name no image here; the hashes and URLs of them are kept out from now on"
        )
