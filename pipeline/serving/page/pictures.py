"""What the model saw, as pictures: frames with their pruned patches dark, boxes drawn on an image.

T frames, H and W pixels, M merged tokens before pruning
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model.media import Medium
from model.training.data.grounding import Box, boxes_of

_DARK = 0.22  # of its brightness: what a pruned patch keeps
_LONGEST = 320  # pixels of a frame's longer side on the page
_LONGEST_IMAGE = 960
_QUALITY = 82
_REF = re.compile(r"<ref>(?P<name>.{0,200}?)</ref>\s*(?P<boxes>(?:<box>|</box>|[\[\]0-9,;\s]){0,4000})", re.DOTALL)
_COLOURS = ("#ff4d4f", "#2f9bff", "#31c46b", "#ffb020", "#b06bff", "#19c7c7")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FrameView:
    """A frame, or an image, as the model saw it.

    Attributes:
        time: Its time in the film, in seconds; None: an image.
        kept: Share of its tokens that the language model reads, 0 to 1.
        jpeg: The picture.
        film: Number of its film in the conversation, from 0.
    """

    time: float | None
    kept: float
    jpeg: bytes
    film: int = 0


def frame_views(medium: Medium, film: int = 0) -> list[FrameView]:
    """Return the frames of a medium that has its patches."""
    from model.images import unpatchify

    t, h, w = medium.grid
    frames = unpatchify(medium.patches, medium.grid, medium.merge).numpy()
    keep = medium.keep_mask.view(t, h // medium.merge, w // medium.merge).numpy()
    return [
        FrameView(
            medium.times[number] if medium.times else None,
            float(keep[number].mean()),
            _jpeg(darken(frames[number], keep[number]), _LONGEST),
            film,
        )
        for number in range(t)
    ]


def darken(frame: Pixels, keep: npt.NDArray[np.bool_]) -> Pixels:
    """Return a frame whose pruned tokens are dark.

    Args:
        frame: The frame (H, W, 3).
        keep: Which of its tokens are kept, in rows and columns.
    """
    rows, columns = keep.shape
    height, width = frame.shape[0] // rows, frame.shape[1] // columns
    bright = np.kron(np.where(keep, 1.0, _DARK), np.ones((height, width)))[..., None]
    darkened: Pixels = (frame * bright).astype(np.uint8)
    return darkened


def named_boxes(text: str, width: int, height: int) -> list[tuple[str, Box]]:
    """Return the boxes of an answer in pixels, each with its name: the text of its `<ref>`, or nothing."""
    named: list[tuple[str, Box]] = []
    end = 0
    for match in _REF.finditer(text):
        named += [("", box) for box in boxes_of(text[end : match.start()], width, height)]
        named += [(" ".join(match["name"].split()), box) for box in boxes_of(match["boxes"], width, height)]
        end = match.end()
    return [*named, *(("", box) for box in boxes_of(text[end:], width, height))]


def draw_boxes(image: Image.Image, answer: str) -> bytes | None:
    """Return the image with an answer's boxes drawn on it, as JPEG. None if there are none."""
    shown = image.convert("RGB")
    shown.thumbnail((_LONGEST_IMAGE, _LONGEST_IMAGE))
    if max(shown.size) < _LONGEST:  # else the names would cover it
        shown = shown.resize((shown.width * _LONGEST // max(shown.size), shown.height * _LONGEST // max(shown.size)))
    boxes = named_boxes(answer, *shown.size)
    if not boxes:
        return None
    draw, font = ImageDraw.Draw(shown), ImageFont.load_default(max(14, shown.width // 40))
    names = list(dict.fromkeys(name for name, _ in boxes))
    for name, box in boxes:
        colour = _COLOURS[names.index(name) % len(_COLOURS)]
        draw.rectangle(box, outline=colour, width=max(2, shown.width // 200))
        if name:
            _label(draw, font, name[:40], box, colour)
    return _jpeg(np.asarray(shown), _LONGEST_IMAGE)


def _label(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, name: str, box: Box, colour: str
) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), name, font=font)
    x, y = box[0], max(box[1] - (bottom - top) - 8, 0)
    draw.rectangle((x, y, x + right - left + 8, y + bottom - top + 8), fill=colour)
    draw.text((x + 4 - left, y + 4 - top), name, fill="black", font=font)


def thumbnail(image: Image.Image) -> bytes:
    """Return a picture for the page, as JPEG."""
    return _jpeg(np.asarray(image.convert("RGB")), _LONGEST)


def _jpeg(pixels: Pixels, longest: int) -> bytes:
    image, data = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((longest, longest))
    image.save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()
