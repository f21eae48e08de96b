"""`vl3syn train`: train a VideoLLaMA3 by a recipe, in this process or on Ray workers."""

from __future__ import annotations

from typing import Annotated

import typer

from core.secrets import refuse_credentials

train_app = typer.Typer()


@train_app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A training recipe (YAML), such as recipes/train-demo.yaml")],
    run: Annotated[
        str,
        typer.Option("--run", help="Where checkpoints, metrics and exports go; with a training there, go on with it"),
    ],
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work, started by Ray")] = 1,
    gpus: Annotated[
        bool | None,
        typer.Option("--gpus/--cpus", help="With several workers: a GPU each, or none; default what there is"),
    ] = None,
    max_failures: Annotated[
        int,
        typer.Option(min=-1, help="With several workers: so often one may die; each time all go on from a checkpoint"),
    ] = 3,
) -> None:
    """Train VideoLLaMA3 through the stages of a recipe. Finished work is not repeated."""
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
    from model.training.ray_launch import train_on_workers

    train_on_workers(checked, run, workers, gpus, max_failures)
