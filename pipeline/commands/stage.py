"""`vl3syn cluster` and `vl3syn dedup`, and what other commands use too: set stages in a run's recipe, compute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from pipeline.execution.job_result import JobResult

stage_app = typer.Typer()


_REMOVE = object()  # as the value of a rule: remove the rule from the recipe


@stage_app.command()
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


@stage_app.command()
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
    clusters = {"stage": "clusters", "keep": dict.fromkeys(replaced, _REMOVE)}
    duplicates = {"stage": "duplicates", "within": within, "keep": keep}
    apply_stages(run_, [hashes_entry(run_, exact), image_encoder_entry(run_), clusters, duplicates], json_)


def hashes_entry(url: str, exact: bool | None) -> dict[str, Any]:
    """Return the entry of the stage `hashes`.

    `exact` says whether identical files are dropped. None: yes in a new entry; the entry of the run is kept.
    """
    if exact is None and stored_entry(url, "hashes"):
        return {"stage": "hashes"}
    return {"stage": "hashes", "keep": {"per_group_content_hash": _REMOVE if exact is False else 1}}


def balance_rules(
    column: str, per_group: int | None, total: int | None, order: str | None, seed: int | None
) -> dict[str, Any]:
    """Return the balance rules over the groups of a column, as in `keep`; None: not set."""
    return {f"per_group_{column}": per_group, f"total_{column}": total, "order": order, "seed": seed}


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError as error:
        raise UserError(f"--levels {text}: separate integers by commas, as in 1000,100") from error


@resumable()
def apply_stages(url: str, entries: list[dict[str, Any]], json_: bool, refit: bool = False) -> None:
    """Set stages in the run's recipe (new stages at the end), compute them, and print the results.

    If the change is refused, even by a worker, the recipe is restored, so that later commands work.

    Args:
        url: The run.
        entries: The stages, as in a run's recipe: rules have their full names. A setting that is None keeps the value
            of the recipe or the stage's default. A rule that is `_REMOVE` is removed. Without `as`, an entry is about
            the run's step of this stage, whatever its name.
        json_: Whether to print JSON.
        refit: Whether trained stages are trained again.
    """
    from manifests import open_run
    from pipeline.commands import output

    open_run(url)  # a path that is no run is refused before anything is written there
    with output.working_on(url):
        jobs = set_stages(url, entries, refit)
        for job in jobs:
            output.announce(job)
        output.finish(url, jobs, json_)


def set_stages(url: str, entries: list[dict[str, Any]], refit: bool = False) -> list[JobResult]:
    """Set stages in the run's recipe and compute them, as `apply_stages` does. The caller holds the run's lease."""
    from manifests.run import RECIPE, step_name
    from pipeline.commands import output
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import check_models, preload, prepare, run_stages
    from pipeline.recipe import parse_recipe

    run = output.opened(url)
    stages = {step_name(entry): dict(entry) for entry in run.recipe.get("stages") or []}
    names = [_set_entry(stages, entry, url) for entry in entries]
    changed = {**run.recipe, "stages": list(stages.values())}
    recipe, before = parse_recipe(changed, f"{url}: {names[-1]}"), run.folder.read(RECIPE)
    check_models(recipe, url, only=names)
    check_nodes(recipe, url, only=names)
    try:
        with LocalWorkers() as local:
            preload(recipe, url, local, names)
            return list(run_stages(prepare(recipe, url, refit), recipe, names, refit, local))
    except UserError:
        run.folder.write(RECIPE, before)
        raise


def _set_entry(stages: dict[str, dict[str, Any]], entry: dict[str, Any], url: str) -> str:
    """Change a step of a recipe, or add it at the end; return its name. `stages` are the steps by name."""
    name = entry.get("as") or _named(stages, entry["stage"], url) or entry["stage"]
    step = stages.setdefault(name, {})
    if step.get("stage", entry["stage"]) != entry["stage"]:
        raise UserError(f"{url} has a step {name} already, of the stage {step['stage']}: give another name, with --as")
    step |= _without_none(entry) | {"keep": _merged(step.get("keep") or {}, _without_none(entry.get("keep", {})))}
    step.pop("fitted", None)  # it was trained with other settings, or it is the latest, which is the default
    return name


def _named(stages: dict[str, dict[str, Any]], stage: str, url: str) -> str | None:
    """Return the name of the step that a command without `--as` is about: the one of that stage; None: there is none.

    Raises:
        UserError: The recipe has several, and none is called like the stage.
    """
    names = [name for name, entry in stages.items() if entry["stage"] == stage]
    if stage in names or len(names) < 2:
        return stage if stage in names else next(iter(names), None)
    raise UserError(f"{url} has {stage} several times, as {' and '.join(names)}: say which, as in --as {names[0]}")


def _merged(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge the rules of a stage with changed and new ones.

    Balance rules come last: rules apply in order, and a later rule would make the balanced groups too small.
    """
    from manifests.rules import BALANCE, MODIFIERS

    if not changes:
        return before
    keep = {rule: value for rule, value in {**before, **changes}.items() if value is not _REMOVE}
    balance = {rule: keep.pop(rule) for rule in list(keep) if rule.startswith(BALANCE)}
    # Modifiers without balance rules are refused later, if the user gave them; stored ones are dropped here.
    modifiers = {name: keep.pop(name) for name in MODIFIERS if name in keep and (balance or name in changes)}
    others = {rule: value for rule, value in keep.items() if rule not in MODIFIERS}
    return others | balance | modifiers


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def entries_of(url: str) -> dict[str, dict[str, Any]]:
    """Return the entries of `stages` in a run's recipe, by the steps' names, in order.

    Raises:
        UserError: The run's index is not finished.
    """
    from manifests import open_run
    from manifests.indexing import refuse_unfinished
    from manifests.run import step_name

    run = open_run(url)
    refuse_unfinished(run)
    return {step_name(entry): entry for entry in run.recipe.get("stages") or []}


def stored_entry(url: str, stage: str, name: str | None = None) -> dict[str, Any]:
    """Return the entry of a run's step by its stage and, if `name` is given, by its name; empty if there is none.

    Raises:
        UserError: The run's index is not finished; or it has several steps of the stage, and none is called like it.
    """
    entries = entries_of(url)
    entry = entries.get(name or _named(entries, stage, url) or "", {})
    return entry if entry.get("stage") == stage else {}


def image_encoder_entry(url: str, encoder: str | None = None, default: str | None = None) -> dict[str, Any]:
    """Return the entry of the stage that embeds the images: that of the run, else a new one.

    Args:
        url: The run.
        encoder: The encoder that the user gave; None: that of the run, else `default`.
        default: The encoder of a run without embeddings.

    Raises:
        UserError: The run has none and none is given, or it has embeddings by another encoder than the given one.
    """
    for name in ("clip", "conse"):
        if entry := stored_entry(url, name):
            stored = entry.get("encoder", name)
            if encoder not in (None, stored):
                raise UserError(
                    f"{url} has embeddings by {stored}, which would be used instead of --encoder {encoder}: leave the "
                    f"option out, or change the stage {name} in a recipe and run it"
                )
            return {"stage": name}
    encoder = encoder or default
    if encoder is None:
        raise UserError(f"{url} has no embeddings yet: give --encoder, such as ViT-L-14/openai, or conse (offline)")
    return {"stage": "conse"} if encoder == "conse" else {"stage": "clip", "encoder": encoder}
