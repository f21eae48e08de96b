"""Training on several workers: Ray Train starts them, joins them (gloo or NCCL), and starts them again if one dies.

Run with another number of workers, a training goes on with the same samples in the same steps (loader.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model.training.recipe import TrainRecipe, parse_recipe


def train_on_workers(
    recipe: TrainRecipe, out: str | Path, workers: int, gpus: bool | None = None, max_failures: int = 3
) -> None:
    """Train as `train` does, on so many processes of a Ray cluster.

    Args:
        recipe: Its `lanes` must be a multiple of the workers.
        out: A folder that all workers see.
        workers: Processes.
        gpus: Whether each has a GPU; by default if the cluster has enough.
        max_failures: How often workers may die before the training ends; each time it goes on from the newest
            checkpoint. -1: without limit.

    Raises:
        ValueError: As `train` does, or the cluster has not so many GPUs.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    for stage in recipe.stages:
        if stage.lane_count % workers:
            raise ValueError(
                f"stage {stage.name}: {stage.lane_count} lanes for {workers} workers: "
                "make `lanes` (which divides `rows`) a multiple of the workers"
            )
    if not ray.is_initialized():
        ray.init(log_to_driver=True)
    there = int(ray.cluster_resources().get("GPU", 0))
    gpus = there >= workers if gpus is None else gpus
    if gpus and there < workers:
        raise ValueError(f"{workers} workers with a GPU each, but the cluster has {there}: use fewer, or --cpus")
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "out": os.path.abspath(out)},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=ray.train.RunConfig(
            name="vl3syn-train",
            storage_path=os.path.join(os.path.abspath(out), ".ray"),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    )
    trainer.fit()


def _worker(config: dict[str, Any]) -> None:
    from model.training.run import train

    train(parse_recipe(config["recipe"], "recipe"), config["out"])
