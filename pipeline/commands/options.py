"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RunOption = Annotated[str, typer.Option("--run", help="The run directory: a local path, s3://… or gs://…")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]
AsOption = Annotated[
    str | None,
    typer.Option("--as", help="Name of the step in the run's recipe, if a stage stands twice; a new name adds one"),
]
MinOption = Annotated[float | None, typer.Option("--min", help="Keep rows with at least this score")]
TopOption = Annotated[float | None, typer.Option("--top", help="Keep this fraction with the best scores, such as 0.7")]
EncoderOption = Annotated[
    str | None, typer.Option(help="open_clip's ViT-L-14/openai or another, a model folder, or conse (offline)")
]
ExactOption = Annotated[
    bool | None,
    typer.Option("--exact/--no-exact", help="Keep only one of identical files; default: yes for a new stage"),
]
PerGroupOption = Annotated[int | None, typer.Option(help="Keep at most this number of rows per group")]
TotalOption = Annotated[int | None, typer.Option(help="Keep this number of rows in total, evenly by group")]
OrderOption = Annotated[
    str | None, typer.Option(help="Which are kept: random, spread, closest, farthest, highest_COLUMN, lowest_COLUMN")
]
DTYPES = ("auto", "float32", "bfloat16", "float16")
DtypeOption = Annotated[
    str, typer.Option("--dtype", help=f"Type of the weights: {', '.join(DTYPES)}. auto is bfloat16 on a GPU")
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the random choice; default 0")]


def check_dtype(dtype: str) -> None:
    """Refuse another `--dtype` than those of `DTYPES`."""
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r}: use one of {', '.join(DTYPES)}", param_hint="--dtype")
