"""`vl3syn cluster` and `vl3syn dedup`; and `add`, which adds stages to a run and computes them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.errors import UserError
from pipeline.commands.options import (
    EncoderOption,
    ExactOption,
    JsonOption,
    OrderOption,
    PerGroupOption,
    RunOption,
    SeedOption,
    TotalOption,
)

stage_app = typer.Typer()


_REMOVE = object()


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
    keep = balance_rules("cluster", per_group, total, order, seed)
    add(run_, [*image_encoder(run_, encoder or ""), {"stage": "clusters", **settings, "keep": keep}], json_, refit)


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
    keep = {**limits, **balance_rules("cluster", per_group, total, order, seed)}
    clusters = {"stage": "clusters", "keep": dict.fromkeys(moved, _REMOVE)}
    duplicates = {"stage": "duplicates", "within": within, "keep": keep}
    add(run_, [hashes_entry(run_, exact), *image_encoder(run_, ""), clusters, duplicates], json_)


def hashes_entry(url: str, exact: bool | None) -> dict[str, Any]:
    """The stage with its rule: as asked, else as the run has it; a new stage has it."""
    if exact is None and "hashes" in entries_of(url):
        return {"stage": "hashes"}
    return {"stage": "hashes", "keep": {"per_group_content_hash": _REMOVE if exact is False else 1}}


def balance_rules(
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
    from manifests.indexing import refuse_unfinished, remark
    from manifests.run import RECIPE
    from pipeline.commands import output
    from pipeline.execution.runner import check_models, prepare, run_stages
    from pipeline.recipe import parse_recipe

    run = open_run(url)
    refuse_unfinished(run)
    if said := remark(run):
        output.say(said)
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
    except UserError:
        run.folder.write(RECIPE, before)
        raise
    for done in jobs:
        output.announce(done)
    output.finish(url, jobs, json_)


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
    """The stages by name, in order, of the recipe of a run that is indexed.

    Raises:
        UserError: Its index is not finished.
    """
    from manifests import open_run
    from manifests.indexing import refuse_unfinished

    run = open_run(url)
    refuse_unfinished(run)
    return {entry["stage"]: entry for entry in run.recipe.get("stages") or []}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def image_encoder(url: str, encoder: str) -> list[dict[str, Any]]:
    """The stage that embeds the images: the run's own, so that what is new to it is embedded, else a new one."""
    present = entries_of(url)
    for name in ("clip", "conse"):
        if name in present:
            return [{"stage": name}]
    return [{"stage": "conse"} if encoder == "conse" else {"stage": "clip", "encoder": encoder}]


def encoders(url: str, encoder: str | None) -> list[dict[str, Any]]:
    """The stages that embed images and texts by one encoder, as far as the run has them not."""
    entries = entries_of(url)
    if "coarse_caption" not in entries and "label_caption" not in entries:
        raise UserError(f"{url} has no captions to compare with: run `vl3syn caption coarse` or `caption labels` first")
    if encoder is None and not {"clip", "conse"} & set(entries):
        raise UserError(f"{url} has no embeddings yet: give --encoder, such as ViT-L-14/openai, or conse (offline)")
    if encoder is None:
        encoder = "conse" if "conse" in entries else entries["clip"]["encoder"]
    text = {"stage": "conse_text"} if encoder == "conse" else {"stage": "clip_text", "encoder": encoder}
    return [*image_encoder(url, encoder), text]
