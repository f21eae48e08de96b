"""A page with the samples of a training: pictures and prompts as the model sees them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manifests.version import __version__
from pipeline.reporting.page import render

if TYPE_CHECKING:
    from model.training.forecast import StageForecast
    from model.training.preview import Segment, ShownFrame, ShownMedium, ShownPiece, ShownSample

SIDE = 448
"""Longer side of a picture in pixels, at most."""

BUDGET = 12 << 20
"""Bytes of all pictures of a page, at most; as text in the page they take a third more. Sources share them equally."""

_COLUMNS = {
    "samples": "samples",
    "learned": "learned tokens",
    "text": "other text",
    "vision": "visual tokens",
    "images": "images",
    "frames": "frames",
    "seconds": "film, s",
    "split": "split",
    "skipped": "skipped",
}
"""Titles of the columns of a source."""

_ALWAYS = ("samples", "skipped")
_QUALITY = 80
_LONGEST = 1500  # characters of a segment; longer ones are cut in their middle
_PIECES = 4  # of a sample
_MEDIA = 24  # of a piece
_SEGMENTS = 60  # of a piece


@dataclass(frozen=True)
class SourceView:
    """The shown samples of one source.

    Attributes:
        stage: Name of the stage that they are prepared for.
        source: Name of the source.
        count: Number of the samples.
        samples: The samples; an iterator keeps the pixels of one at a time in memory.
    """

    stage: str
    source: str
    count: int
    samples: Iterable[ShownSample]


@dataclass(frozen=True)
class Picture:
    """A frame or an image on the page; `uri` is empty if the source's part of the page is full."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True)
class PieceView:
    """A piece of a sample on the page.

    Attributes:
        title: Its number, if there are several.
        counts: Kinds of tokens, and how many of each it has.
        media: A line about each image and film, and its pictures.
        segments: Kinds and texts of its segments.
        left_out: What is not shown, since there is too much.
    """

    title: str
    counts: Sequence[tuple[str, int]]
    media: Sequence[tuple[str, Sequence[Picture]]]
    segments: Sequence[tuple[str, str]]
    left_out: str


@dataclass(frozen=True)
class SampleView:
    """A sample on the page.

    Attributes:
        name: Its name; empty if it is skipped.
        error: Why training skips it.
        pieces: Its pieces.
        left_out: What is not shown, since there is too much.
    """

    name: str
    error: str
    pieces: Sequence[PieceView]
    left_out: str


def present_columns(stage: StageForecast) -> dict[str, str]:
    """Return the titles of the totals that a stage's tables show: without those that are 0 throughout."""
    totals = stage.totals
    return {name: title for name, title in _COLUMNS.items() if name in _ALWAYS or totals[name].value}


def mix_page(name: str, forecasts: Sequence[StageForecast], sources: Sequence[SourceView]) -> str:
    """Return the page.

    Args:
        name: Name of the recipe.
        forecasts: The forecast of each stage.
        sources: The samples of each source.

    Raises:
        UserError: Jinja2 is not installed.
    """
    views, pictures = [], _Pictures()
    for number, source in enumerate(sources):
        pictures.allow((BUDGET - pictures.used) // (len(sources) - number))
        views.append((source, [_sample(sample, pictures) for sample in source.samples]))
    columns = [present_columns(stage) for stage in forecasts]
    stages = list(zip(forecasts, columns, strict=True))
    return render("mix.html", name=name, version=__version__, stages=stages, sources=views)


def _sample(sample: ShownSample, pictures: _Pictures) -> SampleView:
    count = len(sample.pieces)
    pieces = [
        _piece(piece, f"piece {number} of {count:,}" if count > 1 else "", pictures)
        for number, piece in enumerate(sample.pieces[:_PIECES], 1)
    ]
    return SampleView(sample.name, sample.error, pieces, _left_out(pieces=count - _PIECES))


def _piece(piece: ShownPiece, title: str, pictures: _Pictures) -> PieceView:
    counts = [("learned", piece.tokens("learned")), ("text", piece.tokens("text")), ("vision", piece.tokens("vision"))]
    return PieceView(
        title,
        counts,
        [(_described(medium), [pictures.add(frame) for frame in medium.frames]) for medium in piece.media[:_MEDIA]],
        [(segment.kind, _words(segment)) for segment in piece.segments[:_SEGMENTS]],
        _left_out(media=len(piece.media) - _MEDIA, segments=len(piece.segments) - _SEGMENTS),
    )


def _left_out(**counts: int) -> str:
    """Return a line about what is not shown; empty if all is."""
    more = [f"{count:,} more {what}" for what, count in counts.items() if count > 0]
    return f"left out: {', '.join(more)}" if more else ""


def _described(medium: ShownMedium) -> str:
    """Return a line about an image or a film."""
    height, width = medium.frames[0].pixels_HW3.shape[:2]
    kept = f"{medium.tokens:,} of {medium.before:,}" if medium.tokens < medium.before else f"{medium.tokens:,}"
    if medium.frames[0].time is None:
        return f"image, {width} × {height} pixels, {kept} tokens"
    shown = f", {len(medium.frames)} of them shown" if len(medium.frames) < medium.count else ""
    plural = "" if medium.count == 1 else "s"
    return f"film, {medium.count:,} frame{plural} of {width} × {height} pixels{shown}, {kept} tokens"


def _words(segment: Segment) -> str:
    """Return the text of a segment: of placeholders their number, and long ones without their middle."""
    if segment.kind == "vision":
        return f"{segment.tokens:,} visual token{'' if segment.tokens == 1 else 's'}"
    if len(segment.text) <= _LONGEST:
        return segment.text
    half = _LONGEST // 2
    return f"{segment.text[:half]} […{len(segment.text) - 2 * half:,} characters…] {segment.text[-half:]}"


class _Pictures:
    """Pictures as data URIs, as many as are allowed.

    Attributes:
        used: Bytes of all of them.
    """

    def __init__(self) -> None:
        self.used, self._limit = 0, 0

    def allow(self, more: int) -> None:
        """Allow so many bytes more than there are."""
        self._limit = self.used + more

    def add(self, frame: ShownFrame) -> Picture:
        """Return a frame as a JPEG."""
        from PIL import Image

        picture, encoded = Image.fromarray(frame.pixels_HW3), io.BytesIO()
        picture.thumbnail((SIDE, SIDE))
        picture.save(encoded, "JPEG", quality=_QUALITY, optimize=True)
        time = "" if frame.time is None else f"{frame.time:.1f} s, "
        caption = f"{time}{frame.tokens:,} token{'' if frame.tokens == 1 else 's'}"
        alt = "an image" if frame.time is None else f"the frame at {frame.time:.1f} s"
        if self.used + encoded.tell() > self._limit:
            return Picture("", caption, alt)
        self.used += encoded.tell()
        return Picture(f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}", caption, alt)
