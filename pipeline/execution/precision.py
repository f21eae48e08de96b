"""Choose the float type of a stage's model once, for all rows of its table."""

from __future__ import annotations

from dataclasses import replace

from core.errors import UserError
from core.precision import cpu_dtype, fastest, precision_of, with_precision
from manifests.tables import Table
from pipeline.execution.local_workers import LocalWorkers, is_for_local_workers
from pipeline.execution.placement import is_for_driver, place_workers
from pipeline.execution.ray_session import result_of, start_ray
from pipeline.recipe import Step

_BY_WORKERS = ("float16", "float32")
"""A setting and a stored float type that are right for T5; a worker refuses them for another model."""


def in_one_precision(step: Step, table: Table, rows: int, local: LocalWorkers | None) -> Step:
    """Return the step with `precision` other than `auto`, if its stage has such a setting.

    It is that of the stored rows. Without any, and with `auto`, it is the fastest one of a worker's device.

    Args:
        step: The step.
        table: Its table.
        rows: Number of rows to compute.
        local: Workers for few rows; they end if Ray must start. None: Ray's.

    Raises:
        UserError: The setting is another one than that of the stored rows.
    """
    wanted = precision_of(step.stage)
    if wanted is None:
        return step
    stored = refuse_other_precision(step, table)
    if (wanted, stored) == _BY_WORKERS:
        return step
    chosen = stored or (_fastest(step, rows, local) if wanted == "auto" else wanted)
    return replace(step, stage=with_precision(step.stage, str(chosen)))


def refuse_other_precision(step: Step, table: Table) -> object | None:
    """Return the float type in which the rows of a step's table were computed; None if that is not known.

    Raises:
        UserError: The step has another one.
    """
    wanted = precision_of(step.stage)
    stored = None if wanted is None else table.recorded("dtype")
    if stored and wanted not in ("auto", stored) and (wanted, stored) != _BY_WORKERS:
        raise UserError(
            f"{step.name}: what is stored was computed in {stored}, not in {wanted}: set `precision: auto` to "
            f"go on in {stored}, or take another run directory to compute all rows in {wanted}"
        )
    return stored


def _fastest(step: Step, rows: int, local: LocalWorkers | None) -> str:
    """Return the fastest float type of the device that a worker of this job gets."""
    if is_for_driver(step.stage, step.resources, rows):
        return cpu_dtype()
    if local and is_for_local_workers(step.stage, step.resources, rows):
        return cpu_dtype()
    if local:
        local.close()  # Ray needs their memory
    start_ray()
    import ray

    placement = place_workers(step.resources, step.stage)
    if not placement.num_gpus and len(ray.nodes()) == 1:
        return cpu_dtype()
    ask = ray.remote(num_cpus=placement.num_cpus, num_gpus=placement.num_gpus)(fastest)
    return str(result_of(ask.remote(gpu=placement.num_gpus > 0)))
