"""Put the page on the server of the API: the same process, the same model, the same queue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response

from pipeline.serving.answerer import Answerer
from pipeline.serving.page.guard import Guard
from pipeline.serving.page.visitors import Visitors
from pipeline.serving.queue import Queue

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".mp4", ".mov", ".webm", ".mkv", ".avi"}
_MOST_EXAMPLES = 24


@dataclass(frozen=True)
class PageConfig:
    """What the page is started with.

    Attributes:
        folder: A folder for uploads, which is deleted with the server.
        loopback: Whether only this machine reaches the server.
        examples: A folder of images and films to click; None: none.
    """

    folder: Path
    loopback: bool
    examples: Path | None = None


def add_page(app: FastAPI, answerer: Answerer, queue: Queue, config: PageConfig) -> None:
    """Add the page at `/`. Call it after all routes were added: gradio takes the rest."""
    # Before the import. Nothing is told to anybody, and nothing is fetched.
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(config.folder),
        "GRADIO_RUN_HISTORY": "False",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import gradio as gr

    from pipeline.serving.page.layout import STYLE_AND_HEAD, Defaults, page, theme

    visitors = Visitors(answerer, queue, config.folder)

    @app.get(f"{visitors.path}/{{name}}")
    async def film(name: str, request: Request) -> Response:
        path = visitors.film(name)
        if path is None or not path.is_file():
            return PlainTextResponse("there is no such film", 404)
        return FileResponse(path, media_type="video/webm" if path.suffix == ".webm" else "video/mp4")

    title = f"vl3syn: {Path(answerer.names[0]).name or answerer.names[0]}"
    defaults = Defaults(answerer.system, answerer.max_new_tokens, examples_of(config.examples), title)
    blocks = page(visitors, defaults)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=queue.limits.body_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        **STYLE_AND_HEAD,
    )
    app.add_middleware(Guard, limits=queue.limits, folder=config.folder, loopback=config.loopback, ends=queue.ends)  # type: ignore[arg-type]


def examples_of(folder: Path | None) -> Sequence[Path]:
    """Return images and films of a folder and those in it, by name."""
    if folder is None:
        return []
    found: list[Any] = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    return found[:_MOST_EXAMPLES]
