"""`vl3syn eval`: the loss of a VideoLLaMA3 on samples, and the similarity of its answers to the references."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from core.errors import BadSampleError, UserError, reading
from core.paths import check_path, check_replaceable
from core.secrets import refuse_credentials
from pipeline.commands.options import JsonOption

if TYPE_CHECKING:
    from manifests.storage import Folder
    from model.processor import Processor
    from model.training.data.samples import Sample
    from model.training.data.source import Source
    from model.training.evaluation import Answer, CaptionMetrics, ClipEncoder, Loss
    from model.videollama3 import VideoLLaMA3

eval_app = typer.Typer()

CAPTIONS = ("short", "detailed")
_TOLD = 10  # bad samples that are printed on the terminal


@eval_app.command("eval")
def evaluate(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A folder with model and processor")],
    data: Annotated[str, typer.Option(help="Published shards, a folder or URL; or annotations, a .json or .jsonl")],
    caption: Annotated[str | None, typer.Option(help="Of shards: short, or detailed (default)")] = None,
    media: Annotated[
        str | None, typer.Option(help="What paths in annotations are relative to; default the file's own folder")
    ] = None,
    root: Annotated[
        list[str] | None, typer.Option(help="A further folder that media of annotations may lie in; may be given again")
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
    predictions: Annotated[
        str | None, typer.Option(metavar="OUT.jsonl", help="Write each answer beside its reference, a line each")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Compute loss per token, chrF, ROUGE-L, exact matches and CLIPScore of a VideoLLaMA3 on samples."""
    places = {"CKPT": checkpoint, "--data": data, "--media": media, "--encoder": encoder, "--predictions": predictions}
    for what, path in [*places.items(), *(("--root", folder) for folder in root or ())]:
        refuse_credentials(path or "", what)
        if path is not None:
            check_path(path, what)
    annotated = Path(data).suffix.lower() in (".json", ".jsonl", ".ndjson")
    if not annotated and os.path.isfile(data):
        raise UserError(
            f"--data {data}: a file: give annotations that end with .json, .jsonl or .ndjson, unpacked, or a folder of "
            "shards"
        )
    if caption not in (None, *CAPTIONS):
        raise typer.BadParameter(f"{caption!r}: use short or detailed", param_hint="--caption")
    if annotated and caption:
        raise typer.BadParameter("annotations have no captions to choose from: leave it out", param_hint="--caption")
    if media and not annotated:
        raise typer.BadParameter("shards hold their images: leave it out", param_hint="--media")
    if root and not annotated:
        raise typer.BadParameter("shards hold their images: leave it out", param_hint="--root")
    if not max_new_tokens and (encoder or predictions):
        raise typer.BadParameter("0 gives no answers for --encoder and --predictions", param_hint="--max-new-tokens")
    _check(predictions, max_new_tokens)
    seen = _seen(checkpoint, data, caption)
    if held_out is not None and seen is None:
        raise UserError(f"{checkpoint}: was not trained on {data}: leave out --held-out and --trained-on")
    source = _source(seen.name if seen else "eval", data, caption, media, annotated, root or ())
    chosen = _Chosen(source, _rows_of(source, seen, held_out)[:limit])
    encode = _clip(encoder) if encoder else None
    model, processor = _load(checkpoint)
    if seen and held_out is None:
        _warn(checkpoint, data, seen)
    result = _look(model, processor, chosen, max_new_tokens, batch, encode)
    if not result.loss.samples:
        raise UserError(f"{data}: not one of its samples could be looked at; the first: {result.skipped[0]}")
    if predictions:
        _write(predictions, result.answers)
    _tell(checkpoint, data, encoder, result, json_)


@dataclass
class _Chosen:
    """The selected samples of a source. It can be iterated repeatedly; `skipped` lists samples that cannot be read."""

    source: Source
    rows: Sequence[int]
    skipped: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Sample]:
        self.skipped.clear()
        for row in self.rows:
            try:
                yield self.source.sample(row)
            except BadSampleError as error:
                self.skipped.append(_line(error))


@dataclass(frozen=True)
class _Said:
    """One line of the predictions file."""

    sample: str
    answer: str
    reference: str
    clip_score: float | None


@dataclass(frozen=True)
class _Result:
    """The results of an evaluation; `metrics` is None without answers."""

    loss: Loss
    answers: list[_Said]
    metrics: CaptionMetrics | None
    skipped: list[str]

    @property
    def clip_scores(self) -> list[float]:
        return [said.clip_score for said in self.answers if said.clip_score is not None]


def _check(predictions: str | None, max_new_tokens: int) -> None:
    """Check dependencies and the output path before hours of work."""
    from core.pretrained import require

    require("torch", "models", "eval")
    if max_new_tokens:
        require("sacrebleu", "eval", "chrF")
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


def _source(
    name: str, data: str, caption: str | None, media: str | None, annotated: bool, roots: Sequence[str]
) -> Source:
    from model.training.data.annotations import AnnotationSource
    from model.training.data.shards import ShardSource

    if annotated:
        return AnnotationSource(name, data, media, roots=roots)
    return ShardSource(name, data, cast(Literal["short", "detailed"], _caption(caption)))


def _load(checkpoint: str) -> tuple[VideoLLaMA3, Processor]:
    """Load model and processor: on a GPU in the saved dtype, else on the CPU in float32."""
    import torch

    from model import Processor, VideoLLaMA3

    gpu = torch.cuda.is_available()
    model = VideoLLaMA3.from_pretrained(checkpoint, None if gpu else torch.float32)
    return model.to("cuda" if gpu else "cpu"), Processor.from_pretrained(checkpoint)


@dataclass(frozen=True)
class _Seen:
    """A source that the checkpoint was trained on: its name, and the number and seed of its held-out samples."""

    name: str
    held_out: int
    seed: int


def _seen(checkpoint: str, data: str, caption: str | None) -> _Seen | None:
    """Return the source of the checkpoint's training recipe that contains `data`; None if there is none."""
    from model.training.export import PROVENANCE

    file = Path(checkpoint) / PROVENANCE
    recipe: dict[str, Any] = {"sources": {}}
    if file.is_file():
        with reading(file):
            recipe = json.loads(file.read_text())["recipe"]
    for name, source in recipe["sources"].items():
        if "kind" in source:  # of another package: its class is not imported
            continue
        path = source.get("shards") or source["annotations"]
        if f"{_place(data)}/".startswith(f"{_place(path)}/") and (
            not source.get("shards") or source["caption"] == _caption(caption)
        ):
            return _Seen(name, source["held_out"], recipe["seed"])
    return None


def _rows_of(source: Source, seen: _Seen | None, held_out: bool | None) -> Sequence[int]:
    from model.training.data.sampler import EpochPermutation

    rows = range(sum(source.blocks))
    if seen is None or held_out is None:
        return rows
    held = set(EpochPermutation(source, seen.held_out, 0, seen.seed, 1).held_out.tolist())
    if held_out and not held:
        raise UserError(f"of {seen.name} nothing was held out: leave out --held-out")
    return [row for row in rows if (row in held) == held_out]


def _warn(checkpoint: str, data: str, seen: _Seen) -> None:
    from pipeline.commands import output

    what = f"; {seen.held_out} of its samples were not (--held-out)" if seen.held_out else ""
    output.say(f"{checkpoint} was trained on {data} ({seen.name}): this tells what it remembers{what}")


def _caption(caption: str | None) -> str:
    return caption or "detailed"


def _place(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.abspath(path)


def _clip(encoder: str) -> ClipEncoder:
    """Return a function that embeds an image and a text; images use open_clip's own transform."""
    from core.images import decode
    from filters.clip import Clip, ClipText

    images, texts = Clip(encoder=encoder, draft=False).load(), ClipText(encoder=encoder).load()

    def encode(image: Any, text: str) -> tuple[Any, Any]:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        table = images([images.prepare(decode(data, images.side))])
        if error := table["error"][0].as_py():
            raise BadSampleError(error)
        return table["image_embedding"][0].as_py(), texts.encode([text])[0]

    return encode


def _look(
    model: VideoLLaMA3, processor: Processor, chosen: _Chosen, most: int, batch: int, encode: ClipEncoder | None
) -> _Result:
    from model.training.evaluation import Answer, caption_metrics, generate_answers, held_out_loss

    loss = held_out_loss(model, processor, chosen)
    skipped = [*chosen.skipped, *loss.skipped]
    answers: list[_Said] = []
    if most:
        for answer in generate_answers(model, processor, chosen, most, batch):
            if isinstance(answer, Answer):
                answers.append(_said(answer, encode, skipped))
            else:
                skipped.append(answer)
    metrics = caption_metrics([a.answer for a in answers], [a.reference for a in answers]) if answers else None
    return _Result(loss, answers, metrics, list(dict.fromkeys(skipped)))


def _said(answer: Answer, encode: ClipEncoder | None, skipped: list[str]) -> _Said:
    """Make a line of the predictions, with a CLIPScore if the sample has one image and no other media."""
    from model.training.evaluation import clip_score

    score = None
    if encode and [part["type"] for part in answer.media] == ["image"]:
        try:
            score = clip_score(answer.media[0]["image"], answer.text, encode)
        except BadSampleError as error:
            skipped.append(f"{answer.sample}: no CLIPScore: {_line(error)}")
    return _Said(answer.sample, answer.text, answer.reference, score)


def _write(path: str, answers: Sequence[_Said]) -> None:
    """Write the predictions as JSON lines, atomically."""
    folder, name = _target(path)
    with folder.writing(name) as file:
        for said in answers:
            file.write(json.dumps(asdict(said), ensure_ascii=False).encode() + b"\n")


def _tell(checkpoint: str, data: str, encoder: str | None, result: _Result, json_: bool) -> None:
    from pipeline.commands import output

    for name in result.skipped[:_TOLD]:
        output.say(f"skipped {name}")
    if len(result.skipped) > _TOLD:
        output.say(f"skipped {len(result.skipped):,} in all")
    if json_:
        output.print_json(_json(checkpoint, data, encoder, result))
    else:
        output.print_rows(f"{checkpoint} on {data}", ("what", "value", "of"), _rows(encoder, result))


def _json(checkpoint: str, data: str, encoder: str | None, result: _Result) -> dict[str, Any]:
    loss, scores = result.loss, result.clip_scores
    return {
        "checkpoint": checkpoint,
        "data": data,
        "loss": {"mean": loss.mean, "tokens": loss.tokens, "samples": loss.samples},
        "answers": asdict(result.metrics) if result.metrics else None,
        "clip_score": {"encoder": encoder, "mean": _mean(scores), "count": len(scores)} if encoder else None,
        "skipped": result.skipped,
    }


def _rows(encoder: str | None, result: _Result) -> list[tuple[str, float, str]]:
    loss, metrics, scores = result.loss, result.metrics, result.clip_scores
    rows = [("loss", loss.mean, f"nats per token; {_many(loss.tokens, 'token')} of {_many(loss.samples, 'sample')}")]
    if metrics:
        rows += [
            ("chrF", metrics.chrf, f"100; {_many(metrics.count, 'answer')}; {metrics.chrf_signature}"),
            ("ROUGE-L", metrics.rouge_l, f"1; F1, mean over {_many(metrics.rouge_l_count, 'answer')}"),
            ("exact match", metrics.exact, "1; case and space aside"),
        ]
    if encoder:
        rows.append(("CLIPScore", _mean(scores), f"2.5; {_many(len(scores), 'answer')} about one image; {encoder}"))
    return [row for row in rows if not math.isnan(row[1])]


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _line(error: BadSampleError) -> str:
    return " ".join(str(error).split())
