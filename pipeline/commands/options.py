"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RunOption = Annotated[str, typer.Option("--run", help="The run directory: a local path, s3://, gs://, …")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]
MinOption = Annotated[float | None, typer.Option("--min", help="Smallest score that stays")]
TopOption = Annotated[float | None, typer.Option("--top", help="Fraction that stays, the best first: 0.7")]
EncoderOption = Annotated[
    str | None, typer.Option(help="open_clip's ARCHITECTURE/WEIGHTS, a model folder, or `conse` (offline)")
]
ExactOption = Annotated[
    bool | None,
    typer.Option("--exact/--no-exact", help="Drop all but one of identical files: by default a new stage does"),
]
PerGroupOption = Annotated[int | None, typer.Option(help="At most so many images of each group")]
TotalOption = Annotated[int | None, typer.Option(help="So many images in all, as evenly as the groups allow")]
OrderOption = Annotated[
    str | None, typer.Option(help="Which come first: random, spread, closest, farthest, highest_COLUMN, lowest_COLUMN")
]
SeedOption = Annotated[int | None, typer.Option(help="Of the random choice; default 0")]
