"""`vl3syn caption`: captions to filter by, captions to train on, and texts about clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from core.errors import UserError
from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.stage import apply_stages, stored_entry

caption_app = typer.Typer(no_args_is_help=True, help="Caption the images or clips that a run has kept so far.")

ModelOption = Annotated[
    str | None, typer.Option(help="An image chat model: a name on the hub or of the server, or a folder")
]
ServerOption = Annotated[
    str | None, typer.Option(help="A running server, such as http://127.0.0.1:23333/v1. API key: OPENAI_API_KEY")
]
StartOption = Annotated[
    str | None, typer.Option(help="A command that starts a server, once per GPU; {model} and {port} are filled in")
]
InProcessOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="Without a server: lmdeploy (images only, their default; NVIDIA GPU) or transformers (clips' default)",
    ),
]
TrustOption = Annotated[
    bool | None,
    typer.Option(
        "--trust-remote-code/--no-trust-remote-code", help="lmdeploy: run the Python code in the model's repository"
    ),
]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model's repository on the hub")]
ConcurrencyOption = Annotated[int | None, typer.Option(help="Simultaneous requests to the server; default 64")]
PromptsOption = Annotated[str | None, typer.Option(help="A file of prompts, separated by blank lines")]
TokensOption = Annotated[int | None, typer.Option(help="Largest length of a caption, in tokens")]
TemperatureOption = Annotated[float | None, typer.Option(help="0 (default) takes the most probable token")]
LanguageOption = Annotated[str | None, typer.Option(help="Language of the captions (ISO 639-1); default en")]


@caption_app.command()
def coarse(
    run_: RunOption,
    model: Annotated[str | None, typer.Option(help="A BLIP-2 or BLIP model: a name on the hub or a folder")] = None,
    prompt: Annotated[str | None, typer.Option(help="A text that the caption continues, or a question")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Largest length of a caption, in tokens")] = None,
    json_: JsonOption = False,
) -> None:
    """Write a coarse caption with BLIP-2 or BLIP: one short sentence, to filter by."""
    settings = {"model": model, "prompt": prompt, "max_new_tokens": max_new_tokens}
    apply_stages(run_, [{"stage": "coarse_caption", **settings}], json_)


@caption_app.command()
def labels(run_: RunOption, json_: JsonOption = False) -> None:
    """Write a coarse caption from ImageNet labels, offline. It can name only the 1000 classes of ImageNet."""
    apply_stages(run_, [{"stage": "conse"}, {"stage": "label_caption"}], json_)


def _to_train_on(stage: str, use: str) -> Callable[..., None]:
    def command(
        run_: RunOption,
        model: ModelOption = None,
        server: ServerOption = None,
        start: StartOption = None,
        engine: InProcessOption = None,
        concurrency: ConcurrencyOption = None,
        revision: RevisionOption = None,
        trust_remote_code: TrustOption = None,
        prompts: PromptsOption = None,
        max_new_tokens: TokensOption = None,
        temperature: TemperatureOption = None,
        language: LanguageOption = None,
        json_: JsonOption = False,
    ) -> None:
        settings: dict[str, Any] = {"model": model, "prompts": prompts, "max_new_tokens": max_new_tokens}
        settings |= {"temperature": temperature, "language": language, "revision": revision}
        settings |= {"engine": _engine(run_, stage, server, start, engine, concurrency, trust_remote_code)}
        apply_stages(run_, [{"stage": stage, **settings, "keep": _default_rules(run_, stage, use)}], json_)

    return command


_BY = "to train on, with {} or another image chat model."
_OF_CLIPS = "of each clip in a run of clips (RUN/clips), with a chat model that takes several images."
_COMMANDS = {
    "short": ("short_caption", f"Write one sentence {_BY.format('InternVL2-8B')}"),
    "detailed": ("detailed_caption", f"Write a paragraph {_BY.format('InternVL2-26B')}"),
    "dense": ("dense_caption", f"Write the events with their times, and a paragraph, {_OF_CLIPS}"),
    "summary": ("summary", "Write one or two sentences on each clip that has a dense caption, with a chat model."),
}
for _use, (_stage, _help) in _COMMANDS.items():
    caption_app.command(_use, help=_help)(_to_train_on(_stage, _use))


@caption_app.command()
def describe(
    run_: RunOption,
    ocr: Annotated[bool | None, typer.Option("--ocr/--no-ocr", help="Read text in the image too (extra ocr)")] = None,
    json_: JsonOption = False,
) -> None:
    """Write short and detailed captions without a chat model, offline: from labels, colours, composition and light."""
    apply_stages(run_, [{"stage": "conse"}, {"stage": "describe", "ocr": ocr}], json_)


@caption_app.command()
def questions(
    run_: RunOption,
    ask: Annotated[
        str | None, typer.Option(help="text (default): from the dense caption; frames: from the stored frames")
    ] = None,
    aspects: Annotated[
        str | None,
        typer.Option(
            help="videollama3 (default), llava-video, or a file of paragraphs `name: description`; several: a,b"
        ),
    ] = None,
    per_aspect: Annotated[int | None, typer.Option(help="Most questions about one aspect, 1 (default) to 3")] = None,
    forms: Annotated[str | None, typer.Option(help="open, choice (four options), or both (default)")] = None,
    blind: Annotated[
        bool | None, typer.Option("--blind/--no-blind", help="Ask each question again without the clip")
    ] = None,
    model: ModelOption = None,
    server: ServerOption = None,
    start: StartOption = None,
    engine: InProcessOption = None,
    concurrency: ConcurrencyOption = None,
    revision: RevisionOption = None,
    max_new_tokens: TokensOption = None,
    temperature: TemperatureOption = None,
    language: LanguageOption = None,
    json_: JsonOption = False,
) -> None:
    """Write questions and answers about clips, to train on, by aspects. RUN is a run of clips."""
    from captioners.films.questions import default_rules

    settings: dict[str, Any] = {"ask": ask, "aspects": aspects and aspects.split(","), "per_aspect": per_aspect}
    settings |= {"forms": forms, "blind": blind, "model": model, "revision": revision, "language": language}
    settings |= {"max_new_tokens": max_new_tokens, "temperature": temperature}
    settings |= {"engine": _engine(run_, "questions", server, start, engine, concurrency, None)}
    keep = {} if stored_entry(run_, "questions") else default_rules()
    apply_stages(run_, [{"stage": "questions", **settings, "keep": keep}], json_)


def _engine(
    url: str,
    stage: str,
    server: str | None,
    start: str | None,
    kind: str | None,
    concurrency: int | None,
    trust_remote_code: bool | None,
) -> dict[str, Any] | None:
    """Return the engine's settings as in a recipe; None leaves them unchanged."""
    if sum(option is not None for option in (server, start, kind)) > 1:
        raise UserError("give one of --server, --start and --engine")
    if server or start:
        chosen: dict[str, Any] = {"kind": "server", **({"url": server} if server else {"start": start})}
    elif kind in ("lmdeploy", "transformers"):
        chosen = {"kind": kind}
    elif kind:
        raise UserError(f"--engine {kind}: give lmdeploy or transformers; for a server use --server or --start")
    else:
        chosen = stored_entry(url, stage).get("engine") or {}
    if concurrency is not None:
        if chosen.get("kind") != "server":
            raise UserError("--concurrency applies to a server: give --server or --start too")
        chosen = {**chosen, "concurrency": concurrency}
    if trust_remote_code is not None:
        if chosen.get("kind", "lmdeploy") != "lmdeploy":
            raise UserError(f"--trust-remote-code applies to lmdeploy, and the engine is {chosen['kind']}")
        chosen = {"kind": "lmdeploy", **chosen, "trust_remote_code": trust_remote_code}
    return chosen or None


def _default_rules(url: str, stage: str, use: str) -> dict[str, float]:
    """Return the default rules for a new stage; an existing stage keeps its rules."""
    from captioners.recaption import default_rules

    return {} if stored_entry(url, stage) else default_rules(use)
