"""The page, laid out with gradio: its fields, its buttons, and what they call. Nothing here knows the model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import UserError
from pipeline.serving.page import html
from pipeline.serving.page.assets import HEAD, STYLE
from pipeline.serving.page.settings import LABELS, Settings, read_settings
from pipeline.serving.page.talk import View
from pipeline.serving.page.visitors import Visitors

_FONTS = [
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "DejaVu Sans",
    "sans-serif",
]  # of the system: none is fetched
_MONO = ["ui-monospace", "SFMono-Regular", "DejaVu Sans Mono", "monospace"]


def theme() -> Any:
    """Return the colours and fonts of the page."""
    return gr.themes.Default(font=_FONTS, font_mono=_MONO)


STYLE_AND_HEAD = {"css": STYLE, "head": HEAD}
"""What `gradio.mount_gradio_app` is given beside the page."""


_DELETED = (300, 3600)  # every 5 minutes, uploads older than an hour; what was asked about is the visitor's by then


@dataclass(frozen=True)
class Defaults:
    """What the fields hold at first.

    Attributes:
        system: The system prompt.
        max_new_tokens: Maximum tokens of an answer, also for the visitor.
        examples: Images and films to click.
        title: The title.
    """

    system: str
    max_new_tokens: int
    examples: Sequence[Path] = ()
    title: str = "vl3syn"


@dataclass(frozen=True)
class _Fields:
    """The outputs that a `View` fills, in its order."""

    messages: Any
    note: Any
    seen: Any
    question: Any
    players: Any = None
    found: Any = None

    @property
    def all(self) -> list[Any]:
        return [field for field in (*self._always, self.players, self.found) if field is not None]

    @property
    def _always(self) -> tuple[Any, ...]:
        return self.messages, self.note, self.seen, self.question

    def changes(self, view: View, empty: Any) -> list[Any]:
        """Return what gradio does to each field."""
        values = [view.messages, view.note, view.seen, empty if view.taken else None]
        values += [view.players] if self.players is not None else []
        values += [view.found] if self.found is not None else []
        return [gr.skip() if value is None else value for value in values]


def page(visitors: Visitors, defaults: Defaults) -> Any:
    """Return the page, to be mounted."""
    with gr.Blocks(title=defaults.title, analytics_enabled=False, fill_width=True, delete_cache=_DELETED) as blocks:
        gr.HTML(f"<h1>{html.text(defaults.title)}</h1>")
        with gr.Accordion("Settings", open=False, render=False) as accordion:
            settings = _settings(defaults)
        with gr.Tabs():
            with gr.Tab("Chat"):
                _chat(visitors, defaults, settings)
            with gr.Tab("Film as a stream"):
                _stream(visitors, defaults, settings, blocks)
        accordion.render()
        blocks.unload(_leaving(visitors))
    return blocks


def _chat(visitors: Visitors, defaults: Defaults, settings: dict[str, Any]) -> None:
    with gr.Row():
        with gr.Column(scale=3, min_width=360):
            messages = _messages("Ask about images and films")
            note = gr.HTML(html.note("drop images or a film into the field, and ask"))
            question = gr.MultimodalTextbox(
                placeholder="Your question; drop images or films here",
                file_types=["image", "video"],
                file_count="multiple",
                show_label=False,
                elem_id="vl3-question",
                max_plain_text_length=1_000_000,
            )
            with gr.Row():
                stop = gr.Button("Stop", elem_id="vl3-stop", min_width=100)
                anew = gr.Button("New conversation", elem_id="vl3-anew", min_width=100)
            gr.HTML(html.CAMERA)
            if defaults.examples:
                files = [[{"text": "Describe it.", "files": [str(path)]}] for path in defaults.examples]
                gr.Examples(files, [question], label="Examples", examples_per_page=12, elem_id="vl3-examples")
        with gr.Column(scale=2, min_width=320, elem_id="vl3-side"):
            found, players = gr.HTML(), gr.HTML()
            gr.HTML("<h2>What the model saw</h2>")
            seen = gr.HTML(elem_id="vl3-seen")
    fields = _Fields(messages, note, seen, question, players, found)

    async def ask(request: gr.Request, asked: dict[str, Any], *values: Any) -> AsyncGenerator[list[Any]]:
        read = _read(settings, values, defaults)
        if isinstance(read, View):
            yield fields.changes(read, None)
            return
        text, files = asked.get("text") or "", asked.get("files") or []
        async for view in visitors.of(_session(request)).talk.ask(text, files, read):
            yield fields.changes(view, {"text": "", "files": []})

    def begin_anew(request: gr.Request) -> list[Any]:
        visitors.begin_anew(_session(request))
        return fields.changes(View([], "", "", "", html.note("a new conversation"), True), {"text": "", "files": []})

    question.submit(ask, [question, *settings.values()], fields.all, **_LIVE)
    _on_stop(stop, visitors, "talk")
    anew.click(begin_anew, None, fields.all, **_LIVE)
    messages.clear(begin_anew, None, fields.all, **_LIVE)


def _stream(visitors: Visitors, defaults: Defaults, settings: dict[str, Any], blocks: Any) -> None:
    with gr.Row():
        with gr.Column(scale=3, min_width=360):
            messages = _messages("Ask while the film runs")
            note = gr.HTML(html.note("give a film, start it, and ask while it runs"))
            question = gr.Textbox(placeholder="Your question", show_label=False, elem_id="vl3-stream-question")
        with gr.Column(scale=2, min_width=320):
            film = gr.File(label="Film", file_types=["video"], elem_id="vl3-stream-film", height=120)
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="vl3-stream-start")
                stop = gr.Button("Stop", elem_id="vl3-stream-stop")
            state = gr.HTML()
            seen = gr.HTML(elem_id="vl3-stream-seen")
    playing, asking = _Fields(messages, state, seen, question), _Fields(messages, note, seen, question)

    async def play(request: gr.Request, upload: str | None, *values: Any) -> AsyncGenerator[list[Any]]:
        read = _read(settings, values, defaults)
        if isinstance(read, View):
            yield playing.changes(read, None)
            return
        session = _session(request)
        async for view in visitors.of(session).watch.play(upload, read, partial(_unread, blocks, session)):
            yield playing.changes(view, "")

    async def ask(request: gr.Request, asked: str) -> AsyncGenerator[list[Any]]:
        async for view in visitors.of(_session(request)).watch.ask(asked):
            yield asking.changes(view, "")

    start.click(play, [film, *settings.values()], playing.all, **_LIVE)
    question.submit(ask, [question], asking.all, **_LIVE)
    _on_stop(stop, visitors, "watch")


def _messages(label: str) -> Any:
    # As plain text: an answer's Markdown could show pictures of another host, and its <ref> would be lost.
    return gr.Chatbot(
        label=label, height=480, render_markdown=False, buttons=["copy"], feedback_options=None, placeholder=label
    )


def _settings(defaults: Defaults) -> dict[str, Any]:
    """Return the fields of `Settings`, by name."""
    default = "empty: the checkpoint's"
    with gr.Row():  # texts where a field may be empty: an empty gr.Number becomes 0 in the browser
        fields: dict[str, Any] = {
            "fps": gr.Textbox(label=LABELS["fps"], info=default),
            "max_frames": gr.Textbox(label=LABELS["max_frames"], info=default),
            "start": gr.Textbox(label=LABELS["start"], info="seconds"),
            "end": gr.Textbox(label=LABELS["end"], info="seconds"),
            "sampling": gr.Dropdown(["", "exact", "original"], label=LABELS["sampling"], value="", info=default),
            "keep": gr.Textbox(label=LABELS["keep"], info=f"grey levels, or all; {default}"),
        }
    with gr.Row():
        tokens = min(512, defaults.max_new_tokens)
        fields |= {
            "max_new_tokens": gr.Number(label=LABELS["max_new_tokens"], value=tokens, precision=0, info="tokens"),
            "temperature": gr.Number(label=LABELS["temperature"], value=0, info="0: the most probable token"),
            "top_p": gr.Number(label=LABELS["top_p"], value=1, info="above temperature 0"),
            "window": gr.Textbox(label=LABELS["window"], info=default),
        }
    return fields | {"system": gr.Textbox(label=LABELS["system"], value=defaults.system, lines=2)}


def _read(settings: dict[str, Any], values: Sequence[Any], defaults: Defaults) -> Settings | View:
    """Return the settings, or what the page shows of a wrong one."""
    try:
        return read_settings(defaults.max_new_tokens, **dict(zip(settings, values, strict=True)))
    except UserError as error:
        return View(note=html.error(str(error)))


def _on_stop(button: Any, visitors: Visitors, what: str) -> None:
    def stop(request: gr.Request) -> None:
        visitor = visitors.of(_session(request))
        visitor.talk.stop() if what == "talk" else visitor.watch.stop()

    button.click(stop, None, None, **_LIVE)


def _unread(blocks: Any, session: str) -> int:
    waiting = blocks._queue.pending_messages_per_session.get(session)  # gradio has no public name for it
    return waiting.qsize() if waiting else 0


def _leaving(visitors: Visitors) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        visitors.leave(_session(request))

    return leave


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


# Our own queue has the answers take turns; gradio's lets all of them wait there.
# A second click counts, too: it is answered with a line, and another film takes the place of the one that plays.
_LIVE: dict[str, Any] = {
    "concurrency_limit": None,
    "trigger_mode": "multiple",
    "show_progress": "hidden",
    "api_visibility": "private",
}
