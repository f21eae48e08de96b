"""Set stages in a run's recipe and compute them: what all commands do that are about a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from pipeline.execution.job_result import JobResult
    from pipeline.recipe import Recipe

REMOVE = object()
"""As the value of a rule: remove the rule from the recipe."""


def hashes_entry(url: str, exact: bool | None) -> dict[str, Any]:
    """Return the entry of the stage `hashes`.

    `exact` says whether identical files are dropped. None: yes in a new entry; the entry of the run is kept.
    """
    if exact is None and stored_entry(url, "hashes"):
        return {"stage": "hashes"}
    return {"stage": "hashes", "keep": {"per_group_content_hash": REMOVE if exact is False else 1}}


def balance_rules(
    column: str, per_group: int | None, total: int | None, order: str | None, seed: int | None
) -> dict[str, Any]:
    """Return the balance rules over the groups of a column, as in `keep`; None: not set."""
    return {f"per_group_{column}": per_group, f"total_{column}": total, "order": order, "seed": seed}


@resumable()
def apply_stages(url: str, entries: list[dict[str, Any]], json_: bool, refit: bool = False) -> None:
    """Set stages in the run's recipe (new stages at the end), compute them, and print the results.

    If the change is refused, or the stage fails, even in a worker, the recipe is restored, so that later commands work.

    Args:
        url: The run.
        entries: The stages, as in a run's recipe: rules have their full names. A setting that is None keeps the value
            of the recipe or the stage's default. A rule that is `REMOVE` is removed. Without `as`, an entry is about
            the run's step of this stage, whatever its name.
        json_: Whether to print JSON.
        refit: Whether trained stages are trained again.
    """
    from manifests import open_run
    from pipeline.commands import output
    from pipeline.commands.results import finish

    open_run(url)  # a path that is no run is refused before anything is written there
    with output.working_on(url):
        jobs = set_stages(url, entries, refit)
        for job in jobs:
            output.announce(job)
        finish(url, jobs, json_)


def set_stages(url: str, entries: list[dict[str, Any]], refit: bool = False) -> list[JobResult]:
    """Set stages in the run's recipe and compute them, as `apply_stages` does. The caller holds the run's lease."""
    from manifests.run import RECIPE
    from pipeline.commands import output
    from pipeline.execution.local_workers import LocalWorkers
    from pipeline.execution.node_check import check_nodes
    from pipeline.execution.runner import check_models, preload, prepare, run_stages

    run = output.opened(url)
    recipe, names = with_stages(run.recipe, entries, url)
    before = run.folder.read(RECIPE)
    check_models(recipe, url, only=names)
    check_nodes(recipe, url, only=names)
    try:
        with LocalWorkers() as local:
            preload(recipe, url, local, names)
            return list(run_stages(prepare(recipe, url, refit), recipe, names, refit, local))
    except Exception:
        run.folder.write(RECIPE, before)
        raise


def with_stages(written: Mapping[str, Any], entries: Sequence[dict[str, Any]], url: str) -> tuple[Recipe, list[str]]:
    """Return a run's recipe with entries of `apply_stages` set, and the names of their steps. Nothing is written.

    Raises:
        UserError: The changed recipe is not valid.
    """
    from manifests.run import step_name
    from pipeline.recipe import check_orders, parse_recipe

    stages = {step_name(entry): dict(entry) for entry in written.get("stages") or []}
    names = [_set_entry(stages, entry, url) for entry in entries]
    recipe = parse_recipe({**written, "stages": list(stages.values())}, f"{url}: {names[-1]}")
    check_orders(recipe.steps, url, names)
    return recipe, names


def _set_entry(stages: dict[str, dict[str, Any]], entry: dict[str, Any], url: str) -> str:
    """Change a step of a recipe, or add it at the end; return its name. `stages` are the steps by name."""
    name = entry.get("as") or _named(stages, entry["stage"], url) or entry["stage"]
    step = stages.setdefault(name, {})
    if step.get("stage", entry["stage"]) != entry["stage"]:
        raise UserError(f"{url} has a step {name} already, of the stage {step['stage']}: give another name, with --as")
    settings = _settings(step)
    step |= _without_none(entry) | {"keep": _merged(step.get("keep") or {}, _without_none(entry.get("keep", {})))}
    if _settings(step) != settings:
        step.pop("fitted", None)  # it was trained with other settings
    return name


def _settings(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key not in ("keep", "fitted", "stage", "as")}


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
    keep = {rule: value for rule, value in {**before, **changes}.items() if value is not REMOVE}
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
