"""Train on several workers: Ray Train starts them, joins them (gloo or NCCL), and restarts them if one dies.

With another number of workers, a training continues with the same samples in the same steps (loader.py).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

from core.cluster import connect
from core.errors import BadSampleError, UserError, is_bug
from core.paths import local_folder
from model.training.console import show_log
from model.training.held_out import open_held_out
from model.training.recipe import TrainRecipe, parse_recipe, with_absolute_paths
from model.training.run import open_sources, train
from model.training.stop import FILE, Signals, TerminatedError

_REFUSED = ".refused"
"""File in OUT that records a user error. Workers that are restarted after it was written exit at once."""
_BROKEN = ".broken"
"""File in OUT that records that a worker failed because of a bug."""


def train_on_workers(
    recipe: TrainRecipe, out: str | Path, workers: int, gpus: bool | None = None, max_failures: int = 3
) -> None:
    """Run `train` on several processes of a Ray cluster.

    Args:
        recipe: Its `lanes` must be a multiple of the workers.
        out: A folder that all workers can access.
        workers: Number of processes.
        gpus: Whether each worker gets a GPU. Default: yes if the cluster has any.
        max_failures: Number of restarts after a worker failure, each from the newest checkpoint. -1: no limit.

    Raises:
        UserError: As in `train`; or the lanes are not a multiple of the workers, the cluster has too few GPUs, or the
            workers failed too often.
        TerminatedError: A SIGTERM arrived.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    folder = local_folder(out, "--run").absolute()
    for stage in recipe.stages:
        if stage.num_virtual_ranks % workers:
            raise UserError(
                f"stage {stage.name}: {stage.num_virtual_ranks} lanes for {workers} workers: "
                "make `lanes` (which divides `rows`) a multiple of the workers"
            )
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # else every line is printed twice
    connect()
    available = int(ray.cluster_resources().get("GPU", 0))
    gpus = available > 0 if gpus is None else gpus
    if gpus and available < workers:
        raise UserError(f"{workers} workers with a GPU each, but the cluster has {available}: use fewer, or --cpus")
    recipe = with_absolute_paths(recipe)
    open_sources(recipe), open_held_out(recipe)  # report bad sources before workers start
    folder.mkdir(parents=True, exist_ok=True)
    refused = folder / _REFUSED
    refused.unlink(missing_ok=True)
    broken = folder / _BROKEN
    broken.unlink(missing_ok=True)
    stop_file = folder / FILE
    stop_file.unlink(missing_ok=True)
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
    fitting: Future[Any] = Future()
    with Signals(stop_file) as signals:
        # Not in the main thread, where `fit` has a handler of its own: Ctrl-C would end the workers at once.
        Thread(target=_run, args=(trainer.fit, fitting), daemon=True).start()
        failed = fitting.exception()
    if failed is not None and not isinstance(failed, ray.train.TrainingFailedError):
        raise failed
    if refused.is_file():
        raise UserError(refused.read_text()) from failed
    if signals.name:
        raise TerminatedError
    if failed and broken.is_file():
        broken.unlink()
        raise failed  # its text is the worker's traceback
    if failed:
        raise UserError(f"{workers} workers: given up after {max_failures} failures: {_last_line(failed)}") from failed


def _run(function: Callable[[], Any], future: Future[Any]) -> None:
    """Call a function, and put its result or its exception into a future."""
    try:
        future.set_result(function())
    except BaseException as error:  # the thread that waits raises it
        future.set_exception(error)


def _worker(config: dict[str, Any]) -> None:
    """Run the training on one worker."""
    refused = Path(config["out"]) / _REFUSED
    if refused.is_file():
        return
    show_log()
    # The logits are such a view, but nothing writes into them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    try:
        train(parse_recipe(config["recipe"], "recipe"), config["out"])
    except TerminatedError:
        return  # the process that started the workers raises it again
    except (UserError, BadSampleError) as error:
        aside = refused.with_name(f"{_REFUSED}.{os.getpid()}")
        aside.write_text(str(error))
        aside.replace(refused)
        raise  # the other workers wait for this one
    except Exception as error:  # raised again, so that Ray restarts the workers
        if is_bug(error):
            refused.with_name(_BROKEN).touch()
        raise


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1]
