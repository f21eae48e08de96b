"""`vl3syn overlap`: is a benchmark in what we train on?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from core.paths import check_path
from core.secrets import refuse_credentials
from pipeline.commands.options import JsonOption

if TYPE_CHECKING:
    from filters.overlap.benchmark import Benchmark
    from filters.overlap.embeddings import Embedder
    from pipeline.reporting.overlap import Overlap

overlap_app = typer.Typer()

_SHOWN = 5  # rows of the benchmark that are named, those with the most hits


@overlap_app.command()
def overlap(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A run, published shards, imported records, or annotations")
    ],
    benchmark: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="BENCHMARK",
            help="A folder of images, or rows with images or questions: .json, .jsonl, .parquet, .csv, .tsv, .txt",
        ),
    ],
    ids: Annotated[
        str | None, typer.Option(metavar="FILE", help="Ids that must not be in the data, such as film ids; one a line")
    ] = None,
    media: Annotated[
        str | None, typer.Option(help="What paths in annotations are relative to; default the file's own folder")
    ] = None,
    root: Annotated[
        list[str] | None, typer.Option(help="A further folder that media of annotations may lie in; may be given again")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Compare embeddings too: open_clip's ViT-L-14/openai or another, or conse (offline)"),
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --encoder: the smallest cosine that is a hit; default 0.99")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="HITS", help="Write each hit, with both sides: a .jsonl or .parquet file")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if anything was found, or could not be read")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Search for a benchmark's images and questions in training data: copies, also cropped ones, and shared n-grams.

    Nothing is changed. To drop what is found from a run, put the stage `overlap` into its recipe.
    """
    paths = {"DATA": data, "--with": benchmark, "--ids": ids, "--media": media, "--out": out}
    for what, path in [*paths.items(), *(("--root", folder) for folder in root or ())]:
        refuse_credentials(path or "", what)
        if path is not None:
            check_path(path, what)
    if min_cosine is not None and not encoder:
        raise typer.BadParameter("it needs --encoder, whose vectors are compared", param_hint="--min-cosine")
    from filters.overlap.benchmark import Benchmark
    from filters.overlap.embeddings import COSINE
    from filters.overlap.ids import BlockedIds
    from pipeline.commands import output
    from pipeline.reporting.overlap import check_target, search, writing
    from pipeline.reporting.training_rows import training_rows

    if out:
        check_target(out)
    blocked = BlockedIds.read(ids) if ids else None
    rows = training_rows(data, media, root or ())
    cosine = COSINE if min_cosine is None else min_cosine
    indexed = Benchmark(benchmark, _embedder(encoder) if encoder else None, cosine)
    for line in [_contents(indexed), *indexed.problems.lines()]:
        output.say(f"{benchmark}: {line}")
    with writing(out) as write:
        done = search(rows, indexed, blocked, write)
    _say(done)
    if json_:
        output.print_json(_as_json(data, benchmark, done, indexed, bool(ids)))
    else:
        _print(data, benchmark, done, indexed, bool(ids))
    if strict and (done.found_rows or done.unread or indexed.problems.counts):
        raise UserError(
            f"{data}: {done.found_rows:,} of {done.rows:,} rows overlap with {benchmark}, {done.unread:,} could not be "
            f"read, and {sum(indexed.problems.counts.values()):,} of the benchmark (--strict)"
        )


def _embedder(encoder: str) -> Embedder:
    from core.stages import ImageStage
    from filters.overlap.embeddings import Embedder
    from pipeline.stages.registry import stage_class

    settings = {} if encoder == "conse" else {"encoder": encoder}
    stage = stage_class("conse" if encoder == "conse" else "clip").model_validate(settings)
    assert isinstance(stage, ImageStage)
    stage.check_available()
    return Embedder(stage.load())


def _contents(indexed: Benchmark) -> str:
    """Say what is searched for: where a key is called otherwise than known, it is nothing."""
    nothing = [what for what, count in (("image", indexed.images), ("text", indexed.texts)) if not count]
    missing = f"; no {nothing[0]} of it is searched for" if nothing else ""
    return f"{indexed.items:,} rows, {indexed.images:,} images, {indexed.texts:,} rows with a text{missing}"


def _say(done: Overlap) -> None:
    from pipeline.commands import output

    for fault in done.faults:
        output.say(f"not searched: {fault}")
    if done.unread > len(done.faults):
        output.say(f"not searched: {done.unread:,} rows or images in all")
    if done.films:
        output.say(f"not searched: the frames of {done.films:,} films; only their names, by --ids")


def _print(data: str, benchmark: str, done: Overlap, indexed: Benchmark, with_ids: bool) -> None:
    from pipeline.commands import output
    from pipeline.reporting.overlap import OF

    rows = [(kind, done.found[kind], done.of(kind), OF.get(kind, "images")) for kind in _kinds(indexed, with_ids)]
    rows += [
        ("any", done.found_rows, done.rows, "rows"),
        ("of the benchmark", len(done.benchmark_rows), indexed.items, "rows"),
        ("generic question only, not found", done.generic, done.texts, "texts"),
    ]
    output.print_rows(f"{benchmark} in {data}", ("kind", "found", "of", ""), rows)
    for id_, count in done.benchmark_rows.most_common(_SHOWN):
        output.say(f"most found: {id_}, in {count:,} rows")


def _kinds(indexed: Benchmark, with_ids: bool) -> list[str]:
    from pipeline.reporting.overlap import KINDS

    there = {"embedding": indexed.embeds, "text": bool(indexed.texts), "id": with_ids}
    return [kind for kind in KINDS if there.get(kind, bool(indexed.images))]


def _as_json(data: str, benchmark: str, done: Overlap, indexed: Benchmark, with_ids: bool) -> dict[str, Any]:
    return {
        "data": data,
        "benchmark": benchmark,
        "benchmark_hash": indexed.content,
        "benchmark_rows": {
            "all": indexed.items,
            "found": len(done.benchmark_rows),
            "with_text": indexed.texts,
        },
        "benchmark_images": indexed.images,
        "benchmark_unread": dict(indexed.problems.counts),
        "rows": {"all": done.rows, "found": done.found_rows, "generic_question_only": done.generic},
        "found": {kind: {"found": done.found[kind], "of": done.of(kind)} for kind in _kinds(indexed, with_ids)},
        "most_found": dict(done.benchmark_rows.most_common(_SHOWN)),
        "unread": done.unread,
        "films_not_searched": done.films,
    }
