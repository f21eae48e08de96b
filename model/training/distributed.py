"""Training on several workers: Ray Train starts them, joins them (gloo or NCCL), and starts them again if one dies.

Run with another number of workers, a training goes on with the same samples in the same steps (loader.py).
"""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

from core.errors import UserError
from model.training.recipe import TrainRecipe, anchored, parse_recipe
from model.training.run import open_sources, train
from model.training.stop import FILE, TerminatedError

_REFUSED = ".refused"
"""A file in OUT with what a user has to mend; whoever starts again after it was written leaves at once."""


def train_on_workers(
    recipe: TrainRecipe, out: str | Path, workers: int, gpus: bool | None = None, max_failures: int = 3
) -> None:
    """Train as `train` does, on so many processes of a Ray cluster.

    Args:
        recipe: Its `lanes` must be a multiple of the workers.
        out: A folder that all workers see.
        workers: Processes.
        gpus: Whether each has a GPU; by default if the cluster has any.
        max_failures: How often workers may die before the training ends; each time it goes on from the newest
            checkpoint. -1: without limit.

    Raises:
        UserError: As `train` does, or the cluster has not so many GPUs.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    for stage in recipe.stages:
        if stage.lane_count % workers:
            raise UserError(
                f"stage {stage.name}: {stage.lane_count} lanes for {workers} workers: "
                "make `lanes` (which divides `rows`) a multiple of the workers"
            )
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # else every line comes twice
    if not ray.is_initialized():
        ray.init()
    there = int(ray.cluster_resources().get("GPU", 0))
    gpus = there > 0 if gpus is None else gpus
    if gpus and there < workers:
        raise UserError(f"{workers} workers with a GPU each, but the cluster has {there}: use fewer, or --cpus")
    recipe, folder = anchored(recipe), Path(os.path.abspath(out))
    open_sources(recipe)  # what is wrong with them is better said before workers start
    folder.mkdir(parents=True, exist_ok=True)
    refused = folder / _REFUSED
    refused.unlink(missing_ok=True)
    asked = folder / FILE
    asked.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "out": str(folder)},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=ray.train.RunConfig(
            name="vl3syn-train",
            storage_path=str(folder / ".ray"),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    )
    failed = None

    def ask(*_: object) -> None:
        asked.touch()
        signal.signal(signal.SIGTERM, before)  # of a second one nothing is caught

    before = signal.signal(signal.SIGTERM, ask)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failed = error
    finally:
        signal.signal(signal.SIGTERM, before)
    if refused.is_file():
        raise UserError(refused.read_text()) from failed
    if asked.is_file():
        asked.unlink()
        raise TerminatedError
    if failed:
        raise UserError(f"{workers} workers: given up after {max_failures} failures: {_last_line(failed)}") from failed


def _worker(config: dict[str, Any]) -> None:
    """What runs on each."""
    refused = Path(config["out"]) / _REFUSED
    if refused.is_file():
        return
    # The logits are one; nothing writes into them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    try:
        train(parse_recipe(config["recipe"], "recipe"), config["out"])
    except TerminatedError:
        return  # the process that has started the workers ends with its code
    except ValueError as error:
        aside = refused.with_name(f"{_REFUSED}.{os.getpid()}")
        aside.write_text(str(error))
        aside.replace(refused)
        raise  # since the others wait for this one


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1]
