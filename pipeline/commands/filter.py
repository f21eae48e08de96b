"""`vl3syn filter`: compute a score for the images of a run, and set the threshold for it.

A filter's command is made from its class (class_command.py). The commands written out below do more: they embed missing
images first, or have a rule of another kind.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from core.errors import UserError
from pipeline.commands.class_command import command_of
from pipeline.commands.concepts import concept_entries
from pipeline.commands.options import (
    AsOption,
    EncoderOption,
    ExactOption,
    JsonOption,
    MinOption,
    PerGroupOption,
    RunOption,
    SeedOption,
    TopOption,
)
from pipeline.commands.stage import apply_stages, balance_rules, hashes_entry, image_encoder_entry, stored_entry
from pipeline.commands.text_similarity import similarity_entries


class FilterGroup(TyperGroup):
    """The commands of `vl3syn filter`: those below, and one for each other filter that a recipe can name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the filters of this project and of installed packages."""
        from pipeline.stages.registry import STAGES, stage_names

        filters = [name for name, path in stage_names().items() if path.startswith("filters.") or name not in STAGES]
        return sorted({*super().list_commands(ctx), *(name.replace("_", "-") for name in filters)} - _BESIDE)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a filter's command by its name, or by its path `package.module:Class`; None if it is unknown."""
        from pipeline.stages.registry import stage_names

        command = super().get_command(ctx, cmd_name)
        name = cmd_name if ":" in cmd_name else cmd_name.replace("-", "_")
        if command is None and (":" in name or name in stage_names()):
            command = command_of(name, cmd_name)
        return command


_BESIDE = {"clip", "clip-text", "conse", "conse-text"}  # commands that need embeddings compute them

filter_app = typer.Typer(
    cls=FilterGroup, no_args_is_help=True, help="Compute a score for the images of a run, and set the threshold for it."
)


@filter_app.command()
def aesthetic(
    run_: RunOption,
    predictor: Annotated[str | None, typer.Option(help="The predictor: laion-v1 or laion-v2 (default)")] = None,
    weights: Annotated[
        str | None, typer.Option(help="The predictor's .safetensors or .pth file; default: downloaded")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="The predictor's CLIP; default ViT-L-14/openai")] = None,
    min_: MinOption = None,
    top: TopOption = None,
    json_: JsonOption = False,
) -> None:
    """Compute LAION's aesthetic score from CLIP embeddings. Missing embeddings are computed first."""
    from filters.aesthetic import Aesthetic

    settings = {"predictor": predictor, "weights": weights, "encoder": encoder}
    scored = {"stage": "aesthetic", **settings, "keep": {"min_aesthetic": min_, "top_aesthetic": top}}
    apply_stages(run_, [image_encoder_entry(run_, encoder, Aesthetic().encoder), scored], json_)


@filter_app.command()
def similarity(
    run_: RunOption,
    texts: Annotated[
        str | None, typer.Option(help="The texts, such as alt_text or short_caption; default coarse_caption,alt_text")
    ] = None,
    encoder: EncoderOption = None,
    min_: MinOption = None,
    top: TopOption = None,
    min_alt: Annotated[
        float | None, typer.Option(help="Keep images with at least this similarity to the alt text")
    ] = None,
    as_: AsOption = None,
    json_: JsonOption = False,
) -> None:
    """Compute how well texts fit the image, by default its coarse caption and alt text: cosines of embeddings.

    Missing embeddings are computed first. `--min` and `--top` apply to the first text. A run without coarse captions
    (`vl3syn caption coarse`) needs `--texts alt_text`; there an image without alt text does not pass. To compare with
    other texts later, give a name: `--texts short_caption --as short_similarity`.
    """
    rules = {"min": min_, "top": top, **({} if min_alt is None else {"min_alt_similarity": min_alt})}
    columns = None if texts is None else [text.strip() for text in texts.split(",")]
    apply_stages(run_, similarity_entries(run_, encoder, columns, rules, as_), json_)


@filter_app.command()
def hashes(run_: RunOption, exact: ExactOption = None, json_: JsonOption = False) -> None:
    """Hash the file and the picture, and keep only one of identical files. `vl3syn dedup` finds similar images."""
    apply_stages(run_, [hashes_entry(run_, exact)], json_)


@filter_app.command()
def motion(
    run_: RunOption,
    min_: Annotated[float | None, typer.Option("--min", help="Keep clips with at least this motion")] = None,
    max_: Annotated[float | None, typer.Option("--max", help="Keep clips with at most this motion")] = None,
    top: TopOption = None,
    min_kept: Annotated[float | None, typer.Option(help="Keep clips of which DiffFP keeps at least this share")] = None,
    max_still: Annotated[float | None, typer.Option(help="Keep clips with at most this share of still frames")] = None,
    max_black: Annotated[float | None, typer.Option(help="Keep clips with at most this share of black frames")] = None,
    max_border: Annotated[float | None, typer.Option(help="Keep clips of which at most this is black border")] = None,
    fps: Annotated[float | None, typer.Option(help="Sampled frames per second; default 2")] = None,
    as_: AsOption = None,
    json_: JsonOption = False,
) -> None:
    """Decode clips (a run of clips, stage `frames`), and keep those that move: not stills, slide shows or black.

    Motion is the mean difference of neighbouring sampled frames, 0 to 255; shares are 0 to 1.
    """
    rules = {
        "min_motion": min_,
        "max_motion": max_,
        "top_motion": top,
        "min_kept_share": min_kept,
        "max_still_share": max_still,
        "max_black_share": max_black,
        "max_border_share": max_border,
    }
    apply_stages(run_, [{"stage": "frames", "as": as_, "fps": fps, "keep": rules}], json_)


@filter_app.command()
def host(run_: RunOption, per_host: PerGroupOption = None, seed: SeedOption = None, json_: JsonOption = False) -> None:
    """Store the host in each image's URL, and limit the number of images per host."""
    apply_stages(run_, [{"stage": "host", "keep": balance_rules("host", per_host, None, None, seed)}], json_)


@filter_app.command()
def concepts(
    run_: RunOption,
    vocabulary: Annotated[
        str | None, typer.Option(help="File with one concept a line, or imagenet; required the first time")
    ] = None,
    total: Annotated[int | None, typer.Option(help="Draw this number of images, those of rare concepts first")] = None,
    top: Annotated[int | None, typer.Option(help="Number of concepts per image; default 3")] = None,
    template: Annotated[str | None, typer.Option(help="The text to embed; default: a photo of a {}.")] = None,
    encoder: EncoderOption = None,
    seed: SeedOption = None,
    json_: JsonOption = False,
) -> None:
    """Find the concepts of a vocabulary that are nearest to each image, and draw images of rare concepts more often.

    Missing embeddings are computed first. `vl3syn groups RUN --by concepts` shows the concepts.
    """
    settings = {"vocabulary": vocabulary, "top": top, "template": template}
    rules = {"total_concepts": total, "seed": seed}
    apply_stages(run_, concept_entries(run_, encoder, settings, rules), json_)


@filter_app.command()
def overlap(
    run_: RunOption,
    benchmark: Annotated[
        str | None, typer.Option("--with", help="The benchmark: a folder of images, or a file of rows; see docs")
    ] = None,
    texts: Annotated[str | None, typer.Option(help="Texts to search too, such as alt_text,short_caption")] = None,
    max_: Annotated[float | None, typer.Option("--max", help="Keep images with at most this overlap; 0: none")] = None,
    as_: AsOption = None,
    json_: JsonOption = False,
) -> None:
    """Search for a benchmark's images and questions, and drop images of which too much is in it."""
    if benchmark is None and not stored_entry(run_, "overlap", as_):
        raise UserError("give --with, the benchmark: a folder of images, or a file of rows")
    columns = None if texts is None else [text.strip() for text in texts.split(",")]
    again = {} if benchmark is None else {"benchmark": benchmark, "content": content_of(benchmark)}
    apply_stages(
        run_, [{"stage": "overlap", "as": as_, **again, "texts": columns, "keep": {"max_overlap": max_}}], json_
    )


def content_of(benchmark: str) -> str:
    """Return the hash of a benchmark as it is now; the run's recipe may have that of an earlier state."""
    from filters.overlap.files import content_hash

    return content_hash(benchmark)
