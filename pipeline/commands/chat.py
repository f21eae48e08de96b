"""`vl3syn chat`: ask a VideoLLaMA3 about images and videos."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from core.paths import check_path
from core.secrets import refuse_credentials
from core.text import printable
from pipeline.commands.loaded_model import load_model
from pipeline.commands.options import DtypeOption, check_dtype

if TYPE_CHECKING:
    from model.chat import Chat

chat_app = typer.Typer()

_LONGEST_PART = 30.0  # seconds
_COLDEST = 1e-6  # lowest temperature above 0; the quotients of the logits stay finite


@chat_app.command()
def chat(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="Folder of the checkpoint: OUT/4-video/model, …/step-00001000")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(help="The question; - reads it from stdin. Without it: a chat, one question per line"),
    ] = None,
    image: Annotated[list[str] | None, typer.Option(help="An image file; can be repeated")] = None,
    video: Annotated[
        list[str] | None, typer.Option(help="A video file, or a folder of its frames; can be repeated")
    ] = None,
    frames_fps: Annotated[
        float | None, typer.Option(help="Frames per second of a folder of frames; default: 3")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of a video; default: the checkpoint's")] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="Maximum of frames of a video, evenly spaced; default: the checkpoint's")
    ] = None,
    start: Annotated[float | None, typer.Option(help="Start of the part that is read, in seconds")] = None,
    end: Annotated[float | None, typer.Option(help="End of the part that is read, in seconds")] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="LEVELS|all",
            help="Keep video tokens whose pixels change by more than this, in grey levels (0-255), or all. "
            "Default: the checkpoint's (published: 0.05)",
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="A film longer than the model's window: caption its parts, then answer")
    ] = False,
    part: Annotated[float | None, typer.Option(help="With --long: longest part in seconds; default: 30")] = None,
    system: Annotated[
        str | None, typer.Option(help='System prompt; default: that of the published checkpoints; "" for none')
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest length of an answer, in tokens")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the most probable token; above: sampled")] = 0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Total probability of the tokens that are sampled")] = 1,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:1, cpu, …; default: cuda if available")] = None,
    dtype: DtypeOption = "auto",
) -> None:
    """Ask a VideoLLaMA3 about images and videos. The answer is printed word by word.

    Without a prompt a chat starts: /quit or Ctrl-D ends it, Ctrl-C stops an answer.
    """
    refuse_credentials(checkpoint, "CKPT")
    if isinstance(sys.stdin, TextIOWrapper):  # text that is not UTF-8 is refused with the question, as in PROMPT
        sys.stdin.reconfigure(errors="surrogateescape")
    options = {"fps": fps, "max_frames": max_frames, "start": start, "end": end, "frames_fps": frames_fps}
    clip = {name: value for name, value in options.items() if value is not None}
    if not video and (clip or keep):
        raise typer.BadParameter("options about frames are given, but no --video")
    check_dtype(dtype)
    if temperature and not _COLDEST <= temperature < math.inf:
        raise typer.BadParameter(f"{temperature:g}: use 0, or at least {_COLDEST:g}", param_hint="--temperature")
    if long and (image or len(video or ()) != 1 or start is not None or end is not None):
        raise typer.BadParameter("give one --video, and neither --image nor --start or --end", param_hint="--long")
    if part is not None and not long:
        raise typer.BadParameter("give --long too", param_hint="--part")
    media: list[dict[str, Any]] = [{"type": "image", "image": _file(path)} for path in image or ()]
    media += [{"type": "video", "video": _film(path), **clip} for path in video or ()]
    levels = _levels(keep)

    from model.chat import Chat
    from model.prompt import SYSTEM_PROMPT

    seconds = _LONGEST_PART if part is None else part
    if long:
        _check_long(str(media[0]["video"]), seconds, frames_fps)
    model, processor = load_model(checkpoint, device, dtype)
    if keep is not None:
        processor = processor.with_pruning(levels)
    system_prompt = SYSTEM_PROMPT if system is None else system

    def new_chat() -> Chat:
        return Chat(
            model,
            processor,
            [{"role": "system", "content": system_prompt}] if system_prompt else [],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        )

    if long:
        _talk_about(new_chat, str(media[0]["video"]), seconds, clip, prompt)
        return
    talk = new_chat()
    if prompt is None:
        _converse(talk, media)
    else:
        _say(talk, sys.stdin.read().strip() if prompt == "-" else prompt, media)
        _finish(talk)


def _talk_about(
    new_chat: Callable[[], Chat], film: str, part: float, settings: dict[str, Any], prompt: str | None
) -> None:
    """Read a long film part by part, and answer out of the notes, which stderr shows."""
    from model.long_film import LongFilm

    long_film = LongFilm(new_chat, film, part, settings)
    for note in long_film.read():
        print(printable(str(note)), file=sys.stderr)
    asked = _questions() if prompt is None else [sys.stdin.read().strip() if prompt == "-" else prompt]
    for question in asked:
        with suppress(KeyboardInterrupt), closing(long_film.ask(question)) as answer:
            for piece in answer:
                print(_shown(piece), end="", flush=True)
        _finish(long_film.talk)


def _check_long(film: str, part: float, frames_fps: float | None) -> None:
    """Check a long film and its parts, before a model is loaded."""
    from core.frame_sampling import FOLDER_FPS
    from model.long_film import parts

    parts(film, part, FOLDER_FPS if frames_fps is None else frames_fps)


def _file(path: str) -> str:
    """Return the path if it is a file; checked before a model is loaded."""
    if Path(check_path(path)).is_dir():
        raise UserError(f"{path}: a folder, not a file: name an image or a film in it")
    if not Path(path).is_file():
        kind = "not a file, but a pipe, socket or device" if Path(path).exists() else "no such file"
        raise UserError(f"{path}: {kind}")
    return path


def _film(path: str) -> str:
    """Return the path if it is a file, or a folder of frames."""
    from core.frame_folders import list_frames

    if not Path(check_path(path)).is_dir():
        return _file(path)
    list_frames(path)
    return path


def _levels(keep: str | None) -> float | None:
    """Parse `--keep` into grey levels; None keeps all tokens."""
    if keep in (None, "all"):
        return None
    try:
        levels = float(str(keep))
    except ValueError:
        levels = -1.0
    if not 0 <= levels <= 255:
        raise typer.BadParameter(f"{keep!r}: give grey levels, 0 to 255, or all", param_hint="--keep")
    return levels


def _converse(talk: Chat, media: list[dict[str, Any]]) -> None:
    """Answer question by question. Images and videos belong to the first question that is answered."""
    for question in _questions():
        before = len(talk.conversation)
        with suppress(KeyboardInterrupt):
            _say(talk, question, media)
        _finish(talk)
        if len(talk.conversation) > before:
            media = []


def _questions() -> Iterator[str]:
    """Yield questions, one per line, from the terminal or a pipe."""
    typed = sys.stdin.isatty()
    if typed:
        import readline  # noqa: F401  # enables line editing in input()

        print("/quit or Ctrl-D ends, Ctrl-C stops an answer", file=sys.stderr)
    while True:
        try:
            line = input("> " if typed else "").strip()
        except EOFError:
            if typed:
                print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line == "/quit":
            return
        if line:
            yield line


def _say(talk: Chat, question: str, media: list[dict[str, Any]]) -> None:
    """Print the answer as it is generated."""
    with closing(talk.ask(question, media)) as answer:
        for piece in answer:
            print(_shown(piece), end="", flush=True)


def _finish(talk: Chat) -> None:
    """End the line, and print the answer's statistics on stderr."""
    print(flush=True)
    if talk.stats is not None:
        print(talk.stats.line, file=sys.stderr)


def _shown(text: str) -> str:
    """Remove control characters if stdout is a terminal; files and pipes get the text unchanged."""
    if not sys.stdout.isatty():
        return text
    return printable(text, keep="\n\t")
