"""The command line. Heavy modules are imported inside the commands, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from functools import cache
from typing import Annotated

import typer
from typer.main import get_command

from core.errors import is_bug
from core.secrets import redact
from core.text import printable
from pipeline.commands.caption import caption_app
from pipeline.commands.chat import chat_app
from pipeline.commands.clips import clips_app
from pipeline.commands.cluster import cluster_app
from pipeline.commands.compact import compact_app
from pipeline.commands.compare import compare_app
from pipeline.commands.doctor import doctor_app
from pipeline.commands.download import download_app
from pipeline.commands.evaluate import eval_app
from pipeline.commands.export import export_app
from pipeline.commands.filter import filter_app
from pipeline.commands.import_data import import_app
from pipeline.commands.index import index_app
from pipeline.commands.init import init_app
from pipeline.commands.inspect import view_app
from pipeline.commands.look import look_app
from pipeline.commands.mix import mix_app
from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.overlap import overlap_app
from pipeline.commands.publish import publish_app
from pipeline.commands.report import report_app
from pipeline.commands.retry import retry_app
from pipeline.commands.review import review_app
from pipeline.commands.schema import schema_app
from pipeline.commands.serve import serve_app
from pipeline.commands.stopping import resumable
from pipeline.commands.train import train_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a captioned training set like VL3-Syn7M from a pool of web images, and train VideoLLaMA3 on it.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from manifests.version import __version__

        print(f"vl3syn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    pass


@app.command()
@resumable()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe: a YAML file")],
    run_: RunOption,
    refit: Annotated[bool, typer.Option("--refit", help="Train the clusters again, on the present images")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print rows, stages, models and disk; compute and write nothing")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --dry-run: run a sample in a temporary directory, to estimate time")
    ] = False,
    sample: Annotated[int | None, typer.Option(min=2, help="With --measure: images of the sample; default 64")] = None,
    json_: JsonOption = False,
) -> None:
    """Run a whole recipe: index, stages, publication. Stored results are not computed again.

    Examples:

        vl3syn run recipe.yaml --run RUN

        vl3syn run recipe.yaml --run RUN --dry-run

        vl3syn run recipe.yaml --run RUN --dry-run --measure
    """
    if measure and not dry_run:
        raise typer.BadParameter("give --dry-run too", param_hint="--measure")
    if sample and not measure:
        raise typer.BadParameter("give --dry-run --measure too", param_hint="--sample")
    if dry_run:
        from pipeline.commands.dry_run import dry_run as print_plan

        print_plan(recipe, run_, refit, measure, sample, json_)
        return
    from pipeline.commands.run_recipe import run_recipe

    run_recipe(recipe, run_, refit, json_)


app.add_typer(publish_app)
app.add_typer(index_app)
app.add_typer(doctor_app)
app.add_typer(init_app)
app.add_typer(download_app)
app.add_typer(clips_app)
app.add_typer(filter_app, name="filter")
app.add_typer(caption_app, name="caption")
app.add_typer(cluster_app)
app.add_typer(view_app)
app.add_typer(report_app)
app.add_typer(look_app)
app.add_typer(overlap_app)
app.add_typer(compare_app)
app.add_typer(review_app)
app.add_typer(retry_app)
app.add_typer(compact_app)
app.add_typer(mix_app)
app.add_typer(import_app)
app.add_typer(train_app)
app.add_typer(eval_app)
app.add_typer(chat_app)
app.add_typer(serve_app)
app.add_typer(export_app)
app.add_typer(schema_app)


command = cache(get_command)
"""All commands and options, built once in a process: that takes 0.1 s, and a notebook or test may run many."""


def main() -> None:
    """Run the command line. Exit codes: 0 success; 1 failure, with one line on stderr or a bug's traceback; 2 usage.

    VL3SYN_TRACEBACK=1 prints the traceback of every failure.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # users need not know of what Pillow repairs
    try:
        command(app)()
    except Exception as error:
        if os.environ.get("VL3SYN_TRACEBACK") or is_bug(error):
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
        else:
            print(f"vl3syn: {printable(redact(' '.join(str(error).split())))}", file=sys.stderr)
        sys.exit(1)
