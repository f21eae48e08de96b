"""A page with the samples of a training: pictures and prompts as the model sees them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
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
"""Bytes of all pictures of a page, at most; as text in the page they take a third more."""

_QUALITY = 80
_LONGEST = 1500  # characters of a segment; longer ones are cut in their middle


@dataclass(frozen=True)
class SourceView:
    """The shown samples of one source.

    Attributes:
        stage: What the stage that they are prepared for will see.
        source: Name of the source.
        samples: The samples.
    """

    stage: StageForecast
    source: str
    samples: Sequence[ShownSample]


@dataclass(frozen=True)
class Picture:
    """A frame or an image on the page; `uri` is empty if the page is full."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True)
class PieceView:
    """A piece of a sample on the page."""

    title: str
    counts: Sequence[tuple[str, int]]
    films: Sequence[tuple[str, Sequence[Picture]]]
    segments: Sequence[tuple[str, str]]


def mix_page(name: str, forecasts: Sequence[StageForecast], sources: Sequence[SourceView]) -> str:
    """Return the page.

    Args:
        name: Name of the recipe.
        forecasts: The forecast of each stage.
        sources: The samples of each source.

    Raises:
        UserError: Jinja2 is not installed.
    """
    pictures = _Pictures()
    views = [(each, [(sample, _pieces(sample, pictures)) for sample in each.samples]) for each in sources]
    return render("mix.html", name=name, version=__version__, forecasts=forecasts, sources=views)


def _pieces(sample: ShownSample, pictures: _Pictures) -> list[PieceView]:
    several = len(sample.pieces) > 1
    return [
        _piece(piece, f"piece {number} of {len(sample.pieces)}" if several else "", pictures)
        for number, piece in enumerate(sample.pieces, 1)
    ]


def _piece(piece: ShownPiece, title: str, pictures: _Pictures) -> PieceView:
    counts = [("learned", piece.tokens("learned")), ("text", piece.tokens("text")), ("vision", piece.tokens("vision"))]
    films = [(_described(medium), [pictures.add(frame) for frame in medium.frames]) for medium in piece.media]
    return PieceView(title, counts, films, [(segment.kind, _words(segment)) for segment in piece.segments])


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
    """Pictures as data URIs, until the page is full."""

    def __init__(self) -> None:
        self._used = 0

    def add(self, frame: ShownFrame) -> Picture:
        """Return a frame as a JPEG."""
        from PIL import Image

        picture, encoded = Image.fromarray(frame.pixels_HW3), io.BytesIO()
        picture.thumbnail((SIDE, SIDE))
        picture.save(encoded, "JPEG", quality=_QUALITY, optimize=True)
        time = "" if frame.time is None else f"{frame.time:.1f} s, "
        caption = f"{time}{frame.tokens:,} token{'' if frame.tokens == 1 else 's'}"
        alt = "an image" if frame.time is None else f"the frame at {frame.time:.1f} s"
        if self._used + encoded.tell() > BUDGET:
            return Picture("", caption, alt)
        self._used += encoded.tell()
        return Picture(f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}", caption, alt)
