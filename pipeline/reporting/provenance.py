"""What computed the facts of a run: models, licences, weights, float types, software."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from core.errors import UserError
from core.plugins import is_path
from core.secrets import redact
from manifests.run import Run, step_name
from manifests.verdict import StoredStage
from pipeline.recipe_file import StageEntry
from pipeline.stages.registry import STAGES

_NO_SOFTWARE = frozenset(
    {"decoded", "dtype", "inputs", "settings", "stage", "version", "weights", "revision", "device"}
)
"""Keys of a part's provenance that are not `package: version`."""


@dataclass(frozen=True)
class StageProvenance:
    """What computed the newest rows of a step.

    Attributes:
        stage: The step's name.
        table: The name of its stage table, with the fingerprint.
        models: Its models, each with its licence (None: not known); None: the models are not known.
        weights: Hash of the weights, or a commit; None: no model, or not recorded.
        dtype: Float type of the model; None: not recorded.
        software: `package version`, separated by commas.
    """

    stage: str
    table: str
    models: Mapping[str, str | None] | None
    weights: str | None
    dtype: str | None
    software: str


def provenance(run: Run) -> list[StageProvenance]:
    """Return what computed each step, in the recipe's order. Steps without stored rows are left out."""
    models = _models(run)
    return [_of(stage, models.get(stage.name)) for stage in run.stages if stage.table.parts()]


def recipe_text(run: Run) -> str:
    """Return the resolved recipe as YAML, without credentials."""
    text: str = yaml.safe_dump(dict(run.recipe), sort_keys=False, allow_unicode=True, width=100)
    return redact(text)


def _models(run: Run) -> Mapping[str, Mapping[str, str | None] | None]:
    """Return the models of each step; None where they are not known."""
    return {step_name(entry): _models_of(entry) for entry in run.recipe.get("stages") or []}


def _models_of(entry: Mapping[str, Any]) -> Mapping[str, str | None] | None:
    """Return the models of a step of this project. Classes of other packages are not imported: to look at a run must
    not run its code.
    """
    engine = entry.get("engine")
    outside = "class" in entry or (isinstance(engine, Mapping) and is_path(str(engine.get("kind"))))
    if outside or str(entry["stage"]) not in STAGES:
        return None
    try:
        return StageEntry.model_validate(entry).settings.models
    except (UserError, ValidationError):  # of another version, or a name for what is not installed here
        return None


def _of(stage: StoredStage, models: Mapping[str, str | None] | None) -> StageProvenance:
    newest = stage.table.provenance()
    versions = {name: value for name, value in newest.items() if isinstance(value, str) and name not in _NO_SOFTWARE}
    weights, dtype = stage.table.recorded("weights"), stage.table.recorded("dtype")
    return StageProvenance(
        stage=stage.name,
        table=stage.table.folder.path.rpartition("/")[2],
        models=models,
        weights=str(weights) if weights else None,
        dtype=str(dtype) if dtype else None,
        software=", ".join(f"{name} {version}" for name, version in versions.items()),
    )
