"""The commands that add one stage to a run and compute it: `filter`, `cluster`, `dedup`; `add` does it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.errors import UserError
from pipeline.options import (
    EncoderOption,
    ExactOption,
    JsonOption,
    MinOption,
    OrderOption,
    PerGroupOption,
    RunOption,
    SeedOption,
    TopOption,
    TotalOption,
)

filter_app = typer.Typer(no_args_is_help=True, help="Compute one score over a run, and set the rule on it.")
stage_app = typer.Typer()


_REMOVE = object()


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
    add(run_, [{"stage": "aspect_ratio", "keep": keep}], json_)


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
    add(run_, [*_image_encoder(run_, used), scored], json_)


@filter_app.command()
def quality(run_: RunOption, min_: MinOption = None, top: TopOption = None, json_: JsonOption = False) -> None:
    """Classical photographic quality: sharpness, contrast, colour, exposure, compression. Needs no model."""
    add(run_, [{"stage": "quality", "keep": {"min_quality": min_, "top_quality": top}}], json_)


@filter_app.command()
def nsfw(
    run_: RunOption,
    max_: Annotated[float | None, typer.Option("--max", help="Largest probability that stays")] = None,
    json_: JsonOption = False,
) -> None:
    """Probability that an image is not safe for work, by open_nsfw (extra `offline`, CPU)."""
    add(run_, [{"stage": "nsfw", "keep": {"max_nsfw": max_}}], json_)


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
    add(run_, [*_encoders(run_, encoder), {"stage": "similarity", "keep": keep}], json_)


@filter_app.command()
def hashes(run_: RunOption, exact: ExactOption = None, json_: JsonOption = False) -> None:
    """Hashes of the file and of the picture: finds exact copies without a model. `vl3syn dedup` finds near ones."""
    add(run_, [_hashes(run_, exact)], json_)


@filter_app.command()
def host(run_: RunOption, per_host: PerGroupOption = None, seed: SeedOption = None, json_: JsonOption = False) -> None:
    """The host of each image's URL, and at most so many images of each."""
    add(run_, [{"stage": "host", "keep": _balance("host", per_host, None, None, seed)}], json_)


@stage_app.command()
def cluster(
    run_: RunOption,
    clusters: Annotated[int | None, typer.Option(help="Number of clusters (needed the first time)")] = None,
    levels: Annotated[str | None, typer.Option(help="Numbers of clusters of clusters above: 1000,100")] = None,
    iterations: Annotated[int | None, typer.Option(help="Iterations of k-means; default 25")] = None,
    train_seed: Annotated[int | None, typer.Option(help="Where k-means starts from; default 0")] = None,
    encoder: EncoderOption = None,
    per_group: PerGroupOption = None,
    total: TotalOption = None,
    order: OrderOption = None,
    seed: SeedOption = None,
    refit: Annotated[bool, typer.Option("--refit", help="Train anew, on the images that reach it now")] = False,
    json_: JsonOption = False,
) -> None:
    """Cluster the images by their embeddings (computed first where there are none), and keep a balanced choice.

    Clusters are trained once; what comes later is assigned to them. Look at them with `vl3syn groups RUN`.
    """
    present = set(entries_of(run_))
    if encoder is None and not {"clip", "conse"} & present:
        raise UserError(f"{run_} has no embeddings yet: give --encoder, such as ViT-L-14/openai, or conse (offline)")
    if clusters is None and "clusters" not in present:
        raise UserError("give --clusters: VL3-Syn7M's number is unpublished; the square root of the images is a start")
    settings: dict[str, Any] = {"clusters": clusters, "iterations": iterations, "seed": train_seed}
    if levels is not None:
        settings |= {"levels": _numbers(levels)}
    keep = _balance("cluster", per_group, total, order, seed)
    add(run_, [*_image_encoder(run_, encoder or ""), {"stage": "clusters", **settings, "keep": keep}], json_, refit)


@stage_app.command()
def dedup(
    run_: RunOption,
    exact: ExactOption = None,
    max_similarity: Annotated[
        float | None, typer.Option(help="Largest cosine to an image that goes before it, in its cluster")
    ] = None,
    min_phash_distance: Annotated[
        float | None, typer.Option(help="Smallest number of bits, of 64, that its perceptual hash differs by")
    ] = None,
    within: Annotated[str | None, typer.Option(help="Compare within these groups; default cluster")] = None,
    per_group: PerGroupOption = None,
    total: TotalOption = None,
    order: OrderOption = None,
    seed: SeedOption = None,
    json_: JsonOption = False,
) -> None:
    """Find exact, perceptual and semantic duplicates among the images of each cluster; the largest image stays.

    A balance rule given here comes after it, and replaces the one that `vl3syn cluster` has set; its order stays.
    """
    entries = entries_of(run_)
    if "clusters" not in entries:
        raise UserError(f"{run_} has no clusters, and duplicates are looked for within them: `vl3syn cluster` first")
    before = entries["clusters"].get("keep") or {}
    moved = [rule for rule in ("per_group_cluster", "total_cluster") if rule in before and (per_group or total)]
    if moved:
        order = order or before.get("order")
        seed = before.get("seed") if seed is None else seed
    limits = {"max_duplicate_similarity": max_similarity, "min_phash_distance": min_phash_distance}
    keep = {**limits, **_balance("cluster", per_group, total, order, seed)}
    clusters = {"stage": "clusters", "keep": dict.fromkeys(moved, _REMOVE)}
    duplicates = {"stage": "duplicates", "within": within, "keep": keep}
    add(run_, [_hashes(run_, exact), *_image_encoder(run_, ""), clusters, duplicates], json_)


def _hashes(url: str, exact: bool | None) -> dict[str, Any]:
    """The stage with its rule: as asked, else as the run has it; a new stage has it."""
    if exact is None and "hashes" in entries_of(url):
        return {"stage": "hashes"}
    return {"stage": "hashes", "keep": {"per_group_content_hash": _REMOVE if exact is False else 1}}


def _balance(
    column: str, per_group: int | None, total: int | None, order: str | None, seed: int | None
) -> dict[str, Any]:
    return {f"per_group_{column}": per_group, f"total_{column}": total, "order": order, "seed": seed}


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError as error:
        raise UserError(f"--levels {text}: give integers with commas between them, as in 1000,100") from error


def add(url: str, entries: list[dict[str, Any]], json_: bool, refit: bool = False) -> None:
    """Set stages in the run's recipe (new ones at the end), and compute up to the last of them.

    What is refused, also by a worker, leaves the recipe as it was, so that it is in no other command's way.

    What is None in an entry stays as the recipe or the stage's default has it, a rule that is `_REMOVE` goes. Rules go
    by their full names, as a run's recipe has them.
    """
    from manifests import open_run
    from manifests.run import RECIPE
    from pipeline import console
    from pipeline.recipe import parse_recipe
    from pipeline.runner import check_models, prepare, run_stages

    run = open_run(url)
    recipe, before = dict(run.recipe), run.folder.read(RECIPE)
    stages = [dict(entry) for entry in recipe.get("stages") or []]
    for given in entries:
        entry = next((s for s in stages if s["stage"] == given["stage"]), None)
        if entry is None:
            entry = {}
            stages.append(entry)
        entry |= _given(given) | {"keep": _merged(entry.get("keep") or {}, _given(given.get("keep", {})))}
        entry.pop("fitted", None)  # of other settings, or the newest, which is found again
    last = entries[-1]["stage"]
    checked = parse_recipe({**recipe, "stages": stages}, f"{url}: {last}")
    wanted = [entry["stage"] for entry in entries]
    check_models(checked, url, only=wanted)
    try:
        jobs = list(run_stages(prepare(checked, url, refit), checked, only=wanted, refit=refit))
    except ValueError:
        run.folder.write(RECIPE, before)
        raise
    for done in jobs:
        console.announce(done)
    console.finish(url, jobs, json_)


def _merged(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The rules that a stage has with those that are given.

    Balance comes last: rules apply in order, and what a later one drops would leave groups short.
    """
    from manifests.rules import BALANCE, MODIFIERS

    if not given:
        return before
    keep = {rule: value for rule, value in {**before, **given}.items() if value is not _REMOVE}
    balance = {rule: keep.pop(rule) for rule in list(keep) if rule.startswith(BALANCE)}
    shared = {name: keep.pop(name) for name in MODIFIERS if name in keep and (balance or name in given)}
    limits = {rule: value for rule, value in keep.items() if rule not in MODIFIERS}
    return limits | balance | shared


def entries_of(url: str) -> dict[str, dict[str, Any]]:
    """The stages of the run's recipe by name, in order."""
    from manifests import open_run

    return {entry["stage"]: entry for entry in open_run(url).recipe.get("stages") or []}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _image_encoder(url: str, encoder: str) -> list[dict[str, Any]]:
    """The stage that embeds the images: the run's own, so that what is new to it is embedded, else a new one."""
    present = entries_of(url)
    for name in ("clip", "conse"):
        if name in present:
            return [{"stage": name}]
    return [{"stage": "conse"} if encoder == "conse" else {"stage": "clip", "encoder": encoder}]


def _encoders(url: str, encoder: str | None) -> list[dict[str, Any]]:
    """The stages that embed images and texts by one encoder, as far as the run has them not."""
    entries = entries_of(url)
    if "coarse_caption" not in entries and "label_caption" not in entries:
        raise UserError(f"{url} has no captions to compare with: run `vl3syn caption coarse` or `caption labels` first")
    if encoder is None and not {"clip", "conse"} & set(entries):
        raise UserError(f"{url} has no embeddings yet: give --encoder, such as ViT-L-14/openai, or conse (offline)")
    if encoder is None:
        encoder = "conse" if "conse" in entries else entries["clip"]["encoder"]
    text = {"stage": "conse_text"} if encoder == "conse" else {"stage": "clip_text", "encoder": encoder}
    return [*_image_encoder(url, encoder), text]
