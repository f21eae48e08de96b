"""`vl3syn init`: ask for a user's case, and write a commented recipe for it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError

if TYPE_CHECKING:
    from pipeline.commands.recipe_text import Choices

init_app = typer.Typer()

_SERVER = "http://127.0.0.1:8000/v1"


@init_app.command()
def init(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="The pool: a folder, file, glob or URL. Its kind is recognised"),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kind of the pool, without a look at it: images, tars, parquet, img2dataset, urls"),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(help="cpu (offline weights), gpu (small models) or cluster (the paper's chain)"),
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(help="none, describe (offline), or an engine: transformers, lmdeploy, server"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The caption model: a name on the hub, or a folder")] = None,
    server: Annotated[str | None, typer.Option(help="URL of the server, for --captions server")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Images to keep, evenly over the clusters")] = None,
    out: Annotated[str, typer.Option(help="File of the recipe")] = "recipe.yaml",
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file")] = False,
) -> None:
    """Write a commented recipe for your pool, which `vl3syn run` takes as it is.

    On a terminal it asks for what no option says; else PATH is needed, and the rest has defaults. Nothing is computed.

    Examples:

        vl3syn init

        vl3syn init photos --hardware cpu --captions describe --out photos.yaml

        vl3syn init lists --hardware cluster --size 7000000
    """
    from captioners.engines.registry import ENGINES
    from core.yaml_text import load_yaml
    from pipeline.commands import output
    from pipeline.commands.recipe_text import check_choices, compose
    from pipeline.recipe import parse_recipe

    if not os.path.basename(out):
        raise UserError(f"--out {out!r}: name a file")
    if os.path.exists(out) and not force:
        raise UserError(f"{out} exists: give another --out, or --force to write over it")
    choices, seen = _choices(path, kind, hardware, captions, model, server, size, out)
    check_choices(choices.hardware, choices.captions, tuple(ENGINES))
    text = compose(choices)
    recipe = parse_recipe(load_yaml(text, out), out)
    _write(out, text, force)
    output.say(f"pool: {seen}")
    if not choices.knows_clusters:
        output.say(f"the images were not counted: set `clusters` in {out} to about the square root of their number")
    following = f"vl3syn run {shlex.quote(out)} --run RUN --dry-run"
    output.out.print(f"{out}: {len(recipe.steps)} stages; next: {following}", markup=False, soft_wrap=True)


def _choices(
    path: str | None,
    kind: str | None,
    hardware: str | None,
    captions: str | None,
    model: str | None,
    server: str | None,
    size: int | None,
    out: str,
) -> tuple[Choices, str]:
    """Return the choices, asked for where the command does not say them, and what the pool was taken for."""
    from pipeline.commands.recipe_text import DESCRIBE, MODELS, NO_CAPTIONS, Choices, check_choices

    asking = sys.stdin.isatty() and sys.stderr.isatty()
    if path is None and not asking:
        raise UserError("give the pool: vl3syn init PATH (on a terminal it asks)")
    if path is None:
        path = str(typer.prompt("Where are the images? A folder, file, glob or URL", err=True))
    pool, seen, images = _pool(path, kind)
    if asking:
        typer.echo(f"  {seen}", err=True)
    default = "gpu" if shutil.which("nvidia-smi") else "cpu"
    hardware = hardware or _asked(asking, "Hardware: cpu, gpu or cluster", default)
    default = {"cpu": DESCRIBE, "gpu": "transformers", "cluster": "lmdeploy"}.get(hardware, NO_CAPTIONS)
    captions = captions or _asked(asking, "Captions: none, describe, transformers, lmdeploy or server", default)
    if captions == "server":
        server = server or _asked(asking, "URL of the server", _SERVER)
    elif server:
        raise UserError(f"--server is for --captions server, not {captions}")
    if captions not in (NO_CAPTIONS, DESCRIBE):
        check_choices(hardware, captions, (captions,))
        model = model or _asked(asking, "Caption model", MODELS[hardware])
    elif model:
        raise UserError(f"--model is for captions by an engine, not {captions}")
    if size is None and asking:
        size = typer.prompt("Images to keep (0: as many as the rules let through)", 0, type=int, err=True) or None
    name = os.path.splitext(os.path.basename(out))[0]
    return Choices(name, pool, hardware, captions, model or "", server, size, images), seen


def _asked(asking: bool, question: str, default: str) -> str:
    return typer.prompt(question, default, err=True) if asking else default


def _pool(path: str, kind: str | None) -> tuple[dict[str, str], str, int | None]:
    """Return the pool as a recipe has it, a line about it, and how many images it has (None: unknown)."""
    from pipeline.pools.guess import guess_pool
    from pipeline.pools.look import Look
    from pipeline.pools.registry import POOLS, pool_of

    if kind is not None:
        kinds = [name for name, class_ in POOLS.items() if not class_.has_films]
        if kind not in kinds:
            raise UserError(f"--kind: {kind!r} is none of {', '.join(kinds)}")
        pool_of(**{kind: path})
        return {kind: path}, f"{path}, as {kind}", None
    pool, seen = guess_pool(path, {})
    if pool.has_films:
        raise UserError(f"{seen}: recipes for films are written by hand: see docs/pools.md")
    written: dict[str, str] = {pool.kind: path} if pool.kind in POOLS else {"kind": pool.kind, "where": path}
    look = Look.at(path)
    images = len(look.names) if pool.shard_is_image and look.complete else None
    return written, seen, images


def _write(out: str, text: str, force: bool) -> None:
    from manifests.storage import Folder

    folder = Folder.at(os.path.dirname(out) or ".")
    name = os.path.basename(out)
    if force:
        folder.write(name, text.encode())
    elif not folder.create_file(name, text.encode()):
        raise UserError(f"{out} exists: give another --out, or --force to write over it")
