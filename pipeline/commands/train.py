"""`vl3syn train`: train a VideoLLaMA3 by a recipe, in this process or on Ray workers."""

from __future__ import annotations

from typing import Annotated

import typer

from core.secrets import refuse_credentials

train_app = typer.Typer()


@train_app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A training recipe: a YAML file such as recipes/train-demo.yaml")],
    run: Annotated[
        str, typer.Option("--run", help="Folder of checkpoints, metrics and exports. A training in it is continued")
    ],
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes, on Ray if more than one")] = 1,
    gpus: Annotated[
        bool | None,
        typer.Option("--gpus/--cpus", help="With several workers: one GPU each, or none; default: if available"),
    ] = None,
    max_failures: Annotated[
        int, typer.Option(min=-1, help="With several workers: restarts after the death of a worker; -1: no limit")
    ] = 3,
) -> None:
    """Train VideoLLaMA3 through the training stages of a recipe. Finished steps are not repeated."""
    refuse_credentials(recipe, "RECIPE")
    refuse_credentials(run, "--run")
    from model.training.console import show_log
    from model.training.recipe import load_recipe

    show_log()
    checked = load_recipe(recipe)
    if workers == 1:
        from model.training.run import train as go_through

        go_through(checked, run)
        return
    from core.cluster import refuse_relative
    from model.training.ray_launch import train_on_workers

    refuse_relative(run, "--run")
    train_on_workers(checked, run, workers, gpus, max_failures)
