"""`vl3syn cluster` and `vl3syn dedup`: groups of images that are alike, and what is kept of each."""

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
from pipeline.commands.stage import (
    REMOVE,
    apply_stages,
    balance_rules,
    hashes_entry,
    image_encoder_entry,
    stored_entry,
)

cluster_app = typer.Typer()


@cluster_app.command()
def cluster(
    run_: RunOption,
    clusters: Annotated[int | None, typer.Option(help="Number of clusters; required the first time")] = None,
    levels: Annotated[
        str | None, typer.Option(help="Number of clusters at each higher level, such as 1000,100")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Iterations of k-means; default 25")] = None,
    train_seed: Annotated[int | None, typer.Option(help="Seed of the training; default 0")] = None,
    encoder: EncoderOption = None,
    per_group: PerGroupOption = None,
    total: TotalOption = None,
    order: OrderOption = None,
    seed: SeedOption = None,
    refit: Annotated[bool, typer.Option("--refit", help="Train the clusters again, on the present images")] = False,
    json_: JsonOption = False,
) -> None:
    """Cluster the images by their embeddings, and keep a balanced selection. Missing embeddings are computed first.

    The clusters are trained once. Later images are assigned to them. `vl3syn groups RUN` shows the clusters.
    """
    encoder_entry = image_encoder_entry(run_, encoder)
    if clusters is None and not stored_entry(run_, "clusters"):
        raise UserError("give --clusters, the number of clusters; try the square root of the number of images")
    settings: dict[str, Any] = {"clusters": clusters, "iterations": iterations, "seed": train_seed}
    if levels is not None:
        settings |= {"levels": _integers(levels)}
    keep = balance_rules("cluster", per_group, total, order, seed)
    apply_stages(run_, [encoder_entry, {"stage": "clusters", **settings, "keep": keep}], json_, refit)


@cluster_app.command()
def dedup(
    run_: RunOption,
    exact: ExactOption = None,
    max_similarity: Annotated[
        float | None, typer.Option(help="Keep images with at most this cosine to earlier images of their cluster")
    ] = None,
    min_phash_distance: Annotated[
        float | None, typer.Option(help="Keep images whose perceptual hash differs by at least this, 0 to 64 bits")
    ] = None,
    within: Annotated[str | None, typer.Option(help="Column of the groups to compare within; default cluster")] = None,
    per_group: PerGroupOption = None,
    total: TotalOption = None,
    order: OrderOption = None,
    seed: SeedOption = None,
    json_: JsonOption = False,
) -> None:
    """Find exact, perceptual and semantic duplicates within each cluster, and keep the largest image.

    `--per-group` and `--total` apply after deduplication and replace the rules of `vl3syn cluster`; its order and seed
    stay unless `--order` or `--seed` changes them.
    """
    stored = stored_entry(run_, "clusters")
    if not stored:
        raise UserError(f"{run_} has no clusters, in which duplicates are searched: run `vl3syn cluster` first")
    rules = stored.get("keep") or {}
    replaced = [rule for rule in ("per_group_cluster", "total_cluster") if rule in rules and (per_group or total)]
    if replaced:
        order = order or rules.get("order")
        seed = rules.get("seed") if seed is None else seed
    limits = {"max_duplicate_similarity": max_similarity, "min_phash_distance": min_phash_distance}
    keep = {**limits, **balance_rules("cluster", per_group, total, order, seed)}
    clusters = {"stage": "clusters", "keep": dict.fromkeys(replaced, REMOVE)}
    duplicates = {"stage": "duplicates", "within": within, "keep": keep}
    apply_stages(run_, [hashes_entry(run_, exact), image_encoder_entry(run_), clusters, duplicates], json_)


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError as error:
        raise UserError(f"--levels {text}: separate integers by commas, as in 1000,100") from error
