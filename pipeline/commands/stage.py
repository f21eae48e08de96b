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
    """Cluster the images by their embeddings (missing ones are computed first), and keep a balanced selection.

    Clusters are trained once; later images are assigned to them. `vl3syn groups RUN` shows the clusters.
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

    A balance rule given here applies after deduplication and replaces the rule set by `vl3syn cluster`; unless given,
    `--order` and `--seed` keep their values.
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
    """Return the stage `hashes` with its rule as `exact` says; by default a new stage gets it, an old one keeps its."""
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
    """Set stages in the run's recipe (new stages at the end), compute them, and print the results.

    Settings that are None keep the value of the recipe or the stage's default. A rule that is `_REMOVE` is removed.
    Rules have their full names, as in a run's recipe. If the change is refused, even by a worker, the recipe is
    restored, so that later commands work.
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
        entry.pop("fitted", None)  # it belongs to other settings, or it is the latest, which is the default
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
    """Merge the rules of a stage with the given ones.

    Balance rules come last: rules apply in order, and a later rule would leave the balanced groups too small.
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
    """Return the stages in a run's recipe by name, in order.

    Raises:
        UserError: The run's index is not finished.
    """
    from manifests import open_run
    from manifests.indexing import refuse_unfinished

    run = open_run(url)
    refuse_unfinished(run)
    return {entry["stage"]: entry for entry in run.recipe.get("stages") or []}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def image_encoder(url: str, encoder: str) -> list[dict[str, Any]]:
    """Return the stage that embeds the images: the run's own, which embeds new images, else a new one."""
    present = entries_of(url)
    for name in ("clip", "conse"):
        if name in present:
            return [{"stage": name}]
    return [{"stage": "conse"} if encoder == "conse" else {"stage": "clip", "encoder": encoder}]


def encoders(url: str, encoder: str | None) -> list[dict[str, Any]]:
    """Return the stages that embed images and texts with the same encoder; by default the run's encoder."""
    entries = entries_of(url)
    if "coarse_caption" not in entries and "label_caption" not in entries:
        raise UserError(f"{url} has no captions to compare with: run `vl3syn caption coarse` or `caption labels` first")
    if encoder is None and not {"clip", "conse"} & set(entries):
        raise UserError(f"{url} has no embeddings yet: give --encoder, such as ViT-L-14/openai, or conse (offline)")
    if encoder is None:
        encoder = "conse" if "conse" in entries else entries["clip"]["encoder"]
    text = {"stage": "conse_text"} if encoder == "conse" else {"stage": "clip_text", "encoder": encoder}
    return [*image_encoder(url, encoder), text]
