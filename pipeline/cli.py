"""The command line. Everything heavy is imported inside a command, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

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
caption_app = typer.Typer(no_args_is_help=True, help="Caption the images that a run has kept so far.")
app.add_typer(caption_app, name="caption")

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
    from pipeline.runner import build_index, check_models, prepare, run_stages

    checked = load_recipe(recipe)
    check_models(checked, run_)
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
    urls: Annotated[str | None, typer.Option(help="A glob of Parquet files with URLs and metadata, as COYO's")] = None,
    image: Annotated[str | None, typer.Option(help="Parquet: name of the image column")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Parquet, URLs: an integer column that identifies the image")
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

    given = {"images": images, "tars": tars, "parquet": parquet, "img2dataset": img2dataset, "urls": urls}
    given |= {"image": image, "id": id_}
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
    keep = {"max_aspect_ratio": max_, "min_side": min_side, "max_pixels": max_pixels}
    _add(run_, [{"stage": "aspect_ratio", "keep": keep}], json_)


MinOption = Annotated[float | None, typer.Option("--min", help="Smallest score that stays")]
TopOption = Annotated[float | None, typer.Option("--top", help="Fraction that stays, the best first: 0.7")]
EncoderOption = Annotated[
    str | None, typer.Option(help="open_clip's ARCHITECTURE/WEIGHTS, a model folder, or `conse` (offline)")
]


@filter_app.command()
def aesthetic(
    run_: RunOption,
    predictor: Annotated[str | None, typer.Option(help="laion-v1 or laion-v2 (default)")] = None,
    weights: Annotated[
        str | None, typer.Option(help="The head: a .safetensors or .pth file; default from the hub")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="The CLIP it was trained on; default ViT-L-14/openai")] = None,
    min_: MinOption = None,
    top: TopOption = None,
    json_: JsonOption = False,
) -> None:
    """LAION's aesthetic score, from CLIP embeddings (computed first where there are none)."""
    from filters.aesthetic import Aesthetic

    used = encoder or Aesthetic().encoder
    settings = {"predictor": predictor, "weights": weights, "encoder": encoder}
    scored = {"stage": "aesthetic", **settings, "keep": {"min_aesthetic": min_, "top_aesthetic": top}}
    _add(run_, [*_image_encoder(run_, used), scored], json_)


@filter_app.command()
def quality(run_: RunOption, min_: MinOption = None, top: TopOption = None, json_: JsonOption = False) -> None:
    """Classical photographic quality: sharpness, contrast, colour, exposure, compression. Needs no model."""
    _add(run_, [{"stage": "quality", "keep": {"min_quality": min_, "top_quality": top}}], json_)


@filter_app.command()
def nsfw(
    run_: RunOption,
    max_: Annotated[float | None, typer.Option("--max", help="Largest probability that stays")] = None,
    json_: JsonOption = False,
) -> None:
    """Probability that an image is not safe for work, by open_nsfw (extra `offline`, CPU)."""
    _add(run_, [{"stage": "nsfw", "keep": {"max_nsfw": max_}}], json_)


@filter_app.command()
def similarity(
    run_: RunOption,
    encoder: EncoderOption = None,
    min_: MinOption = None,
    top: TopOption = None,
    min_alt: Annotated[float | None, typer.Option(help="Smallest similarity to the alt text that stays")] = None,
    json_: JsonOption = False,
) -> None:
    """Cosine of image and coarse caption (and alt text); embeds first what is not embedded. Caption before."""
    keep = {"min_similarity": min_, "top_similarity": top, "min_alt_similarity": min_alt}
    _add(run_, [*_encoders(run_, encoder), {"stage": "similarity", "keep": keep}], json_)


@caption_app.command()
def coarse(
    run_: RunOption,
    model: Annotated[str | None, typer.Option(help="A BLIP-2 or BLIP: hub name or folder")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the caption begins with, or a question")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest caption, tokens")] = None,
    json_: JsonOption = False,
) -> None:
    """A short caption by BLIP-2 or BLIP, to filter by."""
    settings = {"model": model, "prompt": prompt, "max_new_tokens": max_new_tokens}
    _add(run_, [{"stage": "coarse_caption", **settings}], json_)


@caption_app.command()
def labels(run_: RunOption, json_: JsonOption = False) -> None:
    """A caption out of ImageNet's labels, offline: honest, and no wiser than its thousand classes."""
    _add(run_, [{"stage": "conse"}, {"stage": "label_caption"}], json_)


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


def _add(url: str, entries: list[dict[str, Any]], json_: bool) -> None:
    """Set stages in the run's recipe (new ones at the end), and compute up to the last of them.

    What is None in an entry stays as the recipe or the stage's default has it. Rules go by their full names, as a run's
    recipe has them.
    """
    from manifests import open_run
    from pipeline.recipe import parse_recipe
    from pipeline.runner import check_models, prepare, run_stages

    recipe = dict(open_run(url).recipe)
    stages = [dict(entry) for entry in recipe.get("stages") or []]
    for given in entries:
        entry = next((s for s in stages if s["stage"] == given["stage"]), None)
        if entry is None:
            entry = {}
            stages.append(entry)
        keep = {**entry.get("keep", {}), **_given(given.get("keep", {}))}
        entry |= _given(given) | {"keep": keep}
    last = entries[-1]["stage"]
    checked = parse_recipe({**recipe, "stages": stages}, f"{url}: {last}")
    wanted = [entry["stage"] for entry in entries]
    check_models(checked, url, only=wanted)
    jobs = list(run_stages(prepare(checked, url), checked, only=wanted))
    for done in jobs:
        _announce(done)
    _finish(url, jobs, json_)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _image_encoder(url: str, encoder: str) -> list[dict[str, Any]]:
    """The stage that embeds the images: the run's own, so that what is new to it is embedded, else a new one."""
    from manifests import open_run

    present = [entry["stage"] for entry in open_run(url).recipe.get("stages") or []]
    for name in ("clip", "conse"):
        if name in present:
            return [{"stage": name}]
    return [{"stage": "conse"} if encoder == "conse" else {"stage": "clip", "encoder": encoder}]


def _encoders(url: str, encoder: str | None) -> list[dict[str, Any]]:
    """The stages that embed images and texts by one encoder, as far as the run has them not."""
    from manifests import open_run

    entries = {entry["stage"]: entry for entry in open_run(url).recipe.get("stages") or []}
    if "coarse_caption" not in entries and "label_caption" not in entries:
        raise ValueError(
            f"{url} has no captions to compare with: run `vl3syn caption coarse` or `caption labels` first"
        )
    if encoder is None and not {"clip", "conse"} & set(entries):
        raise ValueError(f"{url} has no embeddings yet: give --encoder, such as ViT-L-14/openai, or conse (offline)")
    if encoder is None:
        encoder = "conse" if "conse" in entries else entries["clip"]["encoder"]
    text = {"stage": "conse_text"} if encoder == "conse" else {"stage": "clip_text", "encoder": encoder}
    return [*_image_encoder(url, encoder), text]


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
