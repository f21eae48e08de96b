"""Fitted artifacts, such as centroids: stored once in the run, named by their hash, part of downstream fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from core.errors import UserError
from core.stages import FittedStage
from manifests.parts import read_part, to_bytes
from manifests.priorities import priority
from manifests.run import step_name
from manifests.storage import Folder
from manifests.tables import fingerprint
from pipeline.execution.inputs import Inputs
from pipeline.execution.placement import is_for_driver, place_workers
from pipeline.execution.ray_session import result_of, start_ray
from pipeline.recipe import Recipe, Step, parse_recipe

_NAME = re.compile(r"\d{6}-[0-9a-f]{16}\.parquet")
_BLOCK = 65_536  # rows of a sample per read


@dataclass(frozen=True)
class Fitted:
    """A fitted artifact: the file `RUN/fitted/<stage>-<fingerprint of the training>/<number>-<hash>.parquet`."""

    folder: Folder
    name: str

    def read(self) -> pa.Table:
        return read_part(self.folder, self.name, "copy it back, or train anew, with --refit")

    @property
    def hash(self) -> str:
        return self.name.removesuffix(".parquet").partition("-")[2]


def sample(step: Step, ids: pl.Series) -> pl.DataFrame:
    """Return the ids that a step's stage trains on, chosen by a hash: the same for any pool with the same images.

    Returns:
        Column `id`, at most `sample_rows` of the stage.
    """
    assert isinstance(step.stage, FittedStage)
    most, numbers = step.stage.sample_rows, ids.to_numpy()
    if len(numbers) > most:
        numbers = numbers[np.argpartition(priority(numbers, 0), most)[:most]]
    return pl.DataFrame({"id": numbers})


def train(step: Step, inputs: Inputs, rows: pl.DataFrame) -> tuple[pa.Table, dict[str, object]]:
    """Train a step's stage: on few rows in the driver, else in one Ray task.

    The task gets the GPU that one of the stage's actors would hold, else all cores of a node.

    Args:
        step: The step.
        inputs: Adds the columns that `rows` lacks.
        rows: The sample, from `pipeline.execution.planner.plan`.

    Returns:
        The fitted artifact, and its provenance.

    Raises:
        UserError: The stage refuses the sample (such as too few rows), the cluster lacks the resources that the recipe
            requests, or the cluster died.
    """
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    assert isinstance(step.stage, FittedStage)
    if is_for_driver(step.stage, step.resources, rows.height):
        return _fit(step.stage, inputs, table)
    start_ray()
    import ray

    gpus = place_workers(step.resources, step.stage).num_gpus
    # It requests one CPU and uses all: no other job of this run is active, and a node on which a submitted job holds
    # one CPU could never offer all of them.
    fit = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(_fit_in_task)
    fitted, provenance = result_of(fit.remote(step.stage, inputs, table))
    return fitted, provenance


def _fit_in_task(stage: FittedStage, inputs: Inputs, rows: pa.Table) -> tuple[pa.Table, dict[str, object]]:
    import ray

    here = ray.get_runtime_context().get_node_id()
    cores = next(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["NodeID"] == here)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores))
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return _fit(stage, inputs, rows)


def _fit(stage: FittedStage, inputs: Inputs, rows: pa.Table) -> tuple[pa.Table, dict[str, object]]:
    starts = range(0, rows.num_rows, _BLOCK)
    sample = pa.concat_tables(inputs.complete(rows.slice(start, _BLOCK)) for start in starts)
    order = np.argsort(priority(sample["id"].to_numpy(), 0))
    sample = sample.select(list(stage.reads)).take(order)  # the name is reused to free the unordered sample
    fitted, provenance = stage.fit(sample)
    return fitted, dict(provenance)


def is_trained(step: Step) -> bool:
    """Return whether the stage must be trained."""
    return isinstance(step.stage, FittedStage)


def fitted_of(step: Step) -> str | None:
    """Return the hash of the artifact that a trained stage names; None if it names none."""
    assert isinstance(step.stage, FittedStage)
    return step.stage.fitted


def find_fitted(folder: Folder, step: Step) -> Fitted | None:
    """Return a step's fitted artifact in the run `folder`: the one that it names, else the latest, else None.

    Raises:
        UserError: The named artifact is missing.
    """
    target = _folder_of(folder, step)
    stored = [Fitted(target, f.base_name) for f in target.files() if _NAME.fullmatch(f.base_name)]
    wanted = fitted_of(step)
    if wanted is None:
        return stored[-1] if stored else None
    match = next((f for f in stored if f.hash == wanted), None)
    if match is None:
        raise UserError(
            f"{step.name}: fitted {wanted} is not in {target.path}: leave `fitted` out of the recipe to train "
            "anew, or copy the file there from the run that has it"
        )
    return match


def resolve_fitted(recipe: Recipe, folder: Folder, refit: bool = False) -> Recipe:
    """Return the recipe with the hashes of the run's fitted artifacts filled in; with `refit`, with none.

    Raises:
        UserError: The recipe names an artifact that the run does not have.
    """
    for position in range(len(recipe.steps)):
        step = recipe.steps[position]
        if not is_trained(step):
            continue
        if refit:
            recipe = with_fitted(recipe, step, None)
        elif artifact := find_fitted(folder, step):
            recipe = with_fitted(recipe, step, artifact.hash)
    return recipe


def with_fitted(recipe: Recipe, step: Step, hash_: str | None) -> Recipe:
    """Return the recipe with one stage's `fitted` set; this renames its table and the tables that depend on it."""
    if fitted_of(step) == hash_:
        return recipe
    written = recipe.resolved()
    for entry in written["stages"]:
        if step_name(entry) == step.name:
            entry["fitted"] = hash_
    return parse_recipe(written, recipe.name)


def store(folder: Folder, step: Step, table: pa.Table, provenance: Mapping[str, object]) -> Fitted:
    """Store a step's fitted artifact as the latest."""
    target = _folder_of(folder, step)
    before = find_fitted(folder, step)
    number = int(before.name.partition("-")[0]) + 1 if before else 1
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema.remove_metadata()) as stream:
        stream.write_table(table.replace_schema_metadata(None).combine_chunks())
    name = f"{number:06d}-{hashlib.blake2b(content.getvalue(), digest_size=8).hexdigest()}.parquet"
    named_table = table.replace_schema_metadata({"vl3syn": json.dumps(dict(provenance), sort_keys=True)})
    target.write(name, to_bytes(named_table))
    return Fitted(target, name)


def _folder_of(folder: Folder, step: Step) -> Folder:
    settings = {k: v for k, v in step.stage.fingerprint_settings().items() if k != "fitted"}
    by = {"version": step.stage.version, "settings": settings, "inputs": dict(step.inputs)}
    return folder.join("fitted").join(f"{step.stage.name}-{fingerprint(by)}")
