"""The parts of the page that gradio has no component for. Foreign text is escaped, pictures are data URIs.

A button with `data-time` jumps to that time, in seconds, in the film with its number; `layout` has the script.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from core.text import printable
from model.chat import GenerationStats
from pipeline.serving.page.moments import clock
from pipeline.serving.page.pictures import FrameView


def film(url: str, number: int, name: str) -> str:
    """Return a player of the film at a URL of this server."""
    return (
        f'<video class="vl3-film" data-film="{number}" controls muted playsinline preload="metadata" '
        f'src="{escape(url)}" aria-label="{escape(printable(name))}"></video>'
    )


def frames(views: Sequence[FrameView]) -> str:
    """Return frames with their times and kept shares, and images."""
    return f'<div class="vl3-frames">{"".join(map(_figure, views))}</div>' if views else ""


def _figure(view: FrameView) -> str:
    picture = f'<img alt="" src="{_data_uri(view.jpeg)}">'
    if view.time is None:
        return f"<figure>{picture}<figcaption>image, {view.kept:.0%} kept</figcaption></figure>"
    caption = f"<figcaption>{clock(view.time)}, {view.kept:.0%} kept</figcaption>"
    jump = (
        f'<button type="button" data-film="{view.film}" data-time="{view.time:g}" title="jump to {clock(view.time)}">'
    )
    return f"<figure>{jump}{picture}</button>{caption}</figure>"


def moments(times: Sequence[float], number: int) -> str:
    """Return a button for each time that an answer names."""
    if not times:
        return ""
    buttons = "".join(
        f'<button type="button" data-film="{number}" data-time="{time:g}">&#9654; {clock(time)}</button>'
        for time in times
    )
    return f'<div class="vl3-times" aria-label="Times in the answer">Times in the answer: {buttons}</div>'


def picture(jpeg: bytes, text: str) -> str:
    """Return a large picture; `text` says what it shows."""
    return f'<img class="vl3-picture" alt="{escape(printable(text))}" src="{_data_uri(jpeg)}">'


def note(text: str) -> str:
    """Return a line of what goes on."""
    return f'<div class="vl3-note" role="status">{escape(printable(text))}</div>'


def error(text: str) -> str:
    """Return the one line of what is wrong."""
    return f'<div class="vl3-error" role="alert">{escape(printable(text))}</div>'


def stats(values: GenerationStats) -> str:
    """Return the numbers of an answer."""
    return note(f"{values.prompt_tokens:,} tokens read, {values.tokens:,} written; {values.line}")


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def text(words: str) -> str:
    """Return foreign text for HTML."""
    return escape(printable(words))


CAMERA = '<div class="vl3-camera"><video hidden muted playsinline></video><button type="button">Camera</button></div>'
"""A button that takes a picture with the browser's camera."""
