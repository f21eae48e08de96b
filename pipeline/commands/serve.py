"""`vl3syn serve`: a trained VideoLLaMA3 as a chat page, and behind OpenAI's chat completions."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError
from core.paths import check_path
from core.secrets import refuse_credentials
from pipeline.commands.options import DtypeOption, check_dtype
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from pipeline.serving.answerer import Answerer
    from pipeline.serving.page.mount import PageConfig
    from pipeline.serving.queue import Limits

serve_app = typer.Typer()

KEY = "VL3SYN_API_KEY"


@serve_app.command()
def serve(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="Folder of the checkpoint: OUT/4-video/model, …/step-00001000")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: a free one")] = 8000,
    name: Annotated[str | None, typer.Option(help="Name of the model for clients; default: CKPT")] = None,
    system: Annotated[
        str | None,
        typer.Option(help="System prompt of requests that have none; default: the published checkpoints'; '' for none"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest length of an answer, in tokens")] = 2048,
    media: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder whose files requests may name as file:// URLs")
    ] = None,
    max_request_mb: Annotated[
        int, typer.Option(min=1, help="Largest request, and largest question of the page, with its media, in MB")
    ] = 64,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Whether to serve the chat page, beside the API")
    ] = True,
    examples: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of images and films that the page offers; default: none")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:1, cpu, …; default: cuda if available")] = None,
    dtype: DtypeOption = "auto",
) -> None:
    """Serve a VideoLLaMA3: a chat page, and OpenAI's chat completions (POST /v1/chat/completions).

    With the environment variable VL3SYN_API_KEY, requests must bring that key, and the page asks for it.
    """
    for what, value in (("CKPT", checkpoint), ("--media", media), ("--name", name), ("--examples", examples)):
        refuse_credentials(value or "", what)
    check_dtype(dtype)
    for what, folder in (("--media", media), ("--examples", examples)):
        if folder is not None and not Path(check_path(folder, what)).is_dir():
            raise UserError(f"{what} {folder}: no such folder")
    if examples is not None and not page:
        raise UserError("--examples is for the page: leave out --no-page")
    listening = _listen(host, port)  # before a model is loaded
    from core.pretrained import require

    for package in ("fastapi", "uvicorn"):
        require(package, "web", "serve")
    from model.prompt import SYSTEM_PROMPT
    from pipeline.commands import output
    from pipeline.commands.loaded_model import load_model
    from pipeline.serving.answerer import Answerer
    from pipeline.serving.queue import Limits

    key = os.environ.get(KEY) or None
    if not key and not _is_loopback(listening):
        output.say(f"any machine that reaches this one can ask: set {KEY} to let in who has the key")
    model, processor = load_model(checkpoint, device, dtype)
    names = list(dict.fromkeys(filter(None, (name, checkpoint))))
    system_prompt = SYSTEM_PROMPT if system is None else system
    answerer = Answerer(model, processor, names, system=system_prompt, max_new_tokens=max_new_tokens)
    limits = Limits(body_bytes=max_request_mb * 1_000_000, media=media, key=key, hosts=(host,))
    with resumable("answers have ended, uploads are deleted"), _page(page, examples, _is_loopback(listening)) as config:
        _serve(answerer, limits, listening, config)


@contextmanager
def _page(wanted: bool, examples: str | None, loopback: bool) -> Iterator[PageConfig | None]:
    """Yield the settings of the page, with a folder for its uploads; None without a page.

    Raises:
        UserError: There are examples for it, and gradio is missing.
    """
    from core.pretrained import require
    from pipeline.commands import output

    if wanted and examples is not None:
        require("gradio", "web", "the page")
    if not wanted or find_spec("gradio") is None:
        if wanted:
            output.say("the API alone: pip install 'vl3syn[web]' brings the chat page")
        yield None
        return
    from pipeline.serving.page.mount import PageConfig

    with tempfile.TemporaryDirectory(prefix="vl3syn-") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder  # what libraries write goes with it
        try:
            yield PageConfig(Path(folder), loopback, Path(examples) if examples else None)
        finally:
            tempfile.tempdir = before


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: There is no such address, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen at {host}:{port}: {reason}; give another --port or --host") from error
    return listening


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _url(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _serve(answerer: Answerer, limits: Limits, listening: socket.socket, page: PageConfig | None) -> None:
    import uvicorn

    from pipeline.commands import output
    from pipeline.serving.api import create_app

    app = create_app(answerer, limits, ends=lambda: server.should_exit, page=page)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    listening.listen()
    output.say(f"serving {answerer.names[0]} at {_url(listening)}/v1; Ctrl-C ends it")
    if page is not None:
        output.say(f"the page is {_url(listening)}/")
    server.run(sockets=[listening])
