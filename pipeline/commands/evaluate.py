"""`vl3syn eval`: the loss of a VideoLLaMA3 on samples, and how good its answers are by the references."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from core.errors import UserError
from core.paths import check_path, check_replaceable
from core.secrets import refuse_credentials
from pipeline.commands.options import DtypeOption, JsonOption, check_dtype

if TYPE_CHECKING:
    from manifests.storage import Folder
    from model.evaluate import Evaluation, ScoredAnswer
    from model.scored_tasks import Task
    from model.training.data.shards import Caption
    from model.training.data.source import SourceConfig

eval_app = typer.Typer()

CAPTIONS = ("short", "detailed", "ocr")
_ROUGE_TASKS = ("captions", "dense-captions")
_TOLD = 10  # bad samples that are printed on the terminal


@eval_app.command("eval")
def evaluate_command(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="Folder of the checkpoint: OUT/4-video/model, …/step-00001000")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Published shards, a folder or URL; records of `vl3syn import`; or annotations, a .json or .jsonl"
        ),
    ],
    caption: Annotated[str | None, typer.Option(help="Of shards: short, detailed (default), or ocr")] = None,
    media: Annotated[
        str | None, typer.Option(help="What paths in annotations are relative to; default the file's own folder")
    ] = None,
    root: Annotated[
        list[str] | None, typer.Option(help="A further folder that media may lie in; may be given again")
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="captions (default), grounding (when?), dense-captions, vqa (short answers), or choice (of options)"
        ),
    ] = "captions",
    scoring: Annotated[
        str | None,
        typer.Option(
            help="standard (default); as VideoLLaMA3's own evaluation scores grounding and vqa: videollama3; as "
            "lmms-eval scores grounding: lmms-eval"
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Scores of the task also for each value of this key of the annotations, such as task_type; may be "
            "given again",
        ),
    ] = None,
    held_out: Annotated[
        bool | None,
        typer.Option("--held-out/--trained-on", help="Of a source of its own training: what was held out, or the rest"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples; default all")] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="Longest answer, tokens; 0 tells the loss only, which is far quicker"),
    ] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Samples that are answered together")] = 8,
    encoder: Annotated[
        str | None, typer.Option(help="For CLIPScore: ARCHITECTURE/WEIGHTS of open_clip, ViT-B-32/openai; or a folder")
    ] = None,
    shuffle_images: Annotated[
        bool,
        typer.Option(
            "--shuffle-images",
            help="Also the loss with other samples' images: if it is no higher, the model does not look at images",
        ),
    ] = False,
    predictions: Annotated[
        str | None,
        typer.Option(metavar="OUT.jsonl", help="Write each answer with its reference, loss and scores, a line each"),
    ] = None,
    dtype: DtypeOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Compute loss per token of a VideoLLaMA3 on samples, and scores of its answers: chrF, ROUGE-L, IoU, ANLS, …"""
    places = {"CKPT": checkpoint, "--data": data, "--media": media, "--encoder": encoder, "--predictions": predictions}
    for what, path in [*places.items(), *(("--root", folder) for folder in root or ())]:
        refuse_credentials(path or "", what)
        if path is not None:
            check_path(path, what)
    from manifests.record_files import are_records

    recorded = are_records(data)
    annotated = recorded or Path(data).suffix.lower() in (".json", ".jsonl", ".ndjson")
    if not annotated and os.path.isfile(data):
        raise UserError(
            f"--data {data}: a file: give annotations that end with .json, .jsonl or .ndjson, unpacked, or a folder of "
            "shards"
        )
    if caption not in (None, *CAPTIONS):
        raise typer.BadParameter(f"{caption!r}: use {', '.join(CAPTIONS)}", param_hint="--caption")
    if annotated and caption:
        raise typer.BadParameter("only shards have captions to choose from: leave it out", param_hint="--caption")
    if media and not annotated:
        raise typer.BadParameter("shards hold their images: leave it out", param_hint="--media")
    if root and not annotated:
        raise typer.BadParameter("shards hold their images: leave it out", param_hint="--root")
    if not max_new_tokens and (encoder or predictions):
        raise typer.BadParameter("0 gives no answers for --encoder and --predictions", param_hint="--max-new-tokens")
    if not max_new_tokens and task != "captions":
        raise typer.BadParameter(f"0 gives no answers for --task {task}", param_hint="--max-new-tokens")
    if by and task == "captions":
        raise typer.BadParameter("captions have no scores of groups: give a --task", param_hint="--by")
    if by and not annotated:
        raise typer.BadParameter("shards have no such keys: leave it out", param_hint="--by")
    check_dtype(dtype)
    _check(predictions, task if max_new_tokens else None)
    scored_task = _task(task, scoring)
    from filters.clip import clip_encoder
    from model.evaluate import evaluate
    from model.training.data.annotations import AnnotationConfig
    from model.training.data.records import RecordConfig
    from model.training.data.shards import ShardConfig

    roots = tuple(root or ())
    source: SourceConfig = (
        RecordConfig(records=data, media=media, roots=roots)
        if recorded
        else AnnotationConfig(annotations=data, media=media, roots=roots)
        if annotated
        else ShardConfig(shards=data, caption=cast("Caption", caption or "detailed"))
    )
    _warn(checkpoint, source, held_out)
    result = evaluate(
        checkpoint,
        source,
        held_out=held_out,
        limit=limit,
        max_new_tokens=max_new_tokens,
        batch=batch,
        encode=clip_encoder(encoder) if encoder else None,
        shuffle_images=shuffle_images,
        dtype=dtype,
        task=scored_task,
        by=list(dict.fromkeys(by or ())),
    )
    if predictions:
        _write(predictions, result.answers)
    _tell(checkpoint, data, encoder, result, json_)


def _task(name: str, scoring: str | None) -> Task | None:
    """Return the task of that name; None for captions."""
    from model.scored_tasks import TASKS

    if name != "captions" and name not in TASKS:
        raise typer.BadParameter(f"{name!r}: use captions, {', '.join(TASKS)}", param_hint="--task")
    scorings = TASKS[name].scorings if name in TASKS else ("standard",)
    if scoring is not None and scoring not in scorings:
        raise typer.BadParameter(f"{scoring!r}: --task {name} has {', '.join(scorings)}", param_hint="--scoring")
    return TASKS[name](scoring or "standard") if name in TASKS else None


def _check(predictions: str | None, task: str | None) -> None:
    """Check dependencies and the output path before hours of work; without a task no answers are scored."""
    from core.pretrained import require

    require("torch", "models", "eval")
    if task == "captions":
        require("sacrebleu", "eval", "chrF")
    if task in _ROUGE_TASKS:
        require("rouge_score", "eval", "ROUGE-L")
    if predictions:
        folder, name = _target(predictions)
        try:
            check_replaceable(predictions)  # /dev/stdout leads to a pipe that has no path
            folder.create()
            if folder.local:
                check_replaceable(f"{folder.path}/{name}")
        except UserError as error:
            raise UserError(f"--predictions {error}") from error


def _target(predictions: str) -> tuple[Folder, str]:
    """Return the folder and the name of the predictions file; the user's own link leads to the file itself."""
    from manifests.storage import Folder

    folder, name = os.path.split(predictions if "://" in predictions else os.path.realpath(predictions))
    return Folder.at(folder), name


def _warn(checkpoint: str, source: SourceConfig, held_out: bool | None) -> None:
    """Print a warning if the checkpoint was trained on the source, or if its parts may be others than they were."""
    from model.training.trained_source import trained_source
    from pipeline.commands import output

    trained = trained_source(checkpoint, source)
    if trained and held_out is not None and not trained.is_known:
        output.say(
            f"{checkpoint} does not say how many samples {trained.name} had, as those of earlier versions: if it has "
            "others now, some of those that are held out were trained on"
        )
    if trained and held_out is None:
        others = f"; {trained.held_out} of its samples were not (--held-out)" if trained.held_out else ""
        if isinstance(trained.held_out, str):
            others = f"; what is held out lies in {trained.held_out}"
        output.say(
            f"{checkpoint} was trained on {source.location} ({trained.name}): this tells what it remembers{others}"
        )


def _write(path: str, answers: Sequence[ScoredAnswer]) -> None:
    """Write the predictions as JSON lines, atomically."""
    folder, name = _target(path)
    with folder.writing(name) as file:
        for answer in answers:
            file.write(json.dumps(asdict(answer), ensure_ascii=False).encode() + b"\n")


def _tell(checkpoint: str, data: str, encoder: str | None, result: Evaluation, json_: bool) -> None:
    from pipeline.commands import output
    from pipeline.commands.evaluation_table import evaluation_json, evaluation_rows

    for what, lines in (("skipped", result.skipped), ("left out", result.scores.left_out if result.scores else ())):
        for line in lines[:_TOLD]:
            output.say(f"{what} {line}")
        if len(lines) > _TOLD:
            output.say(f"{what} {len(lines):,} in all")
    if json_:
        output.print_json(evaluation_json(checkpoint, data, encoder, result))
    else:
        output.print_rows(f"{checkpoint} on {data}", ("what", "value", "of"), evaluation_rows(encoder, result))
