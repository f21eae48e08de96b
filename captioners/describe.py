"""Captions out of what is measured: offline, true as far as they go, and no substitute for a model that sees.

They say which of ImageNet's classes the image looks like and how sure that is, its colours, shape and light, and where
its detail lies. They know no people, relations or actions, and writing only where OCR is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import BaseModel, ConfigDict

from captioners.labels import with_article
from captioners.measured import MEASURED_ON, Measured, measure
from captioners.writing import SIDE, Reader
from filters.weights import require
from manifests.schemas import column

_SURE, _LIKELY, _HINT = 0.6, 0.25, 0.1
"""Probabilities from which the class is named as "shows", "probably shows", "may show"; below it is not named."""

_GREY = 8.0  # of Hasler and Süsstrunk's colourfulness: less is not seen as colour
_VIVID = 60.0
_DARK, _BRIGHT = 0.25, 0.65  # mean luma
_FLAT, _CONTRASTY = 0.12, 0.28  # standard deviation of luma
_NAMED = 0.12  # share of the area from which a colour is named
_WIDE, _PANORAMA = 1.15, 2.0  # width / height
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
_QUOTED = 5  # lines of writing
_CONCENTRATED = 0.2  # share of the detail in one ninth of the image; evenly spread it is 0.11


class Describe(BaseModel):
    """`short_caption` and `detailed_caption` from labels, colours, composition and light.

    A class is named with how probable it is: from 0.6 "shows", from 0.25 "probably shows", from 0.1 "may show", below
    not at all. A colour is named from an eighth of the area.

    Attributes:
        ocr: Read the writing on it too, with RapidOCR (extra `ocr`): about a second per image and core.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar = "describe"
    version: ClassVar = 1
    reads: ClassVar = ("image", "labels", "label_probabilities")
    writes: ClassVar = pa.schema(
        [
            column("short_caption", pa.string(), "One sentence on what was measured: class of ImageNet, colours"),
            column("detailed_caption", pa.string(), "Some sentences: class, colours, composition, light"),
            column("colours", pa.list_(pa.string()), "Names of its colours, the largest area first"),
            column("colour_shares", pa.list_(pa.float32()), "Share of the area of each of `colours`, 0 to 1"),
            column("brightness", pa.float32(), "Mean luma (Rec. 601)", 0, 1),
            column(
                "image_text", pa.string(), "Writing on it, line by line, by OCR; null: none found, or not looked for"
            ),
        ]
    )

    ocr: bool = False

    def ready(self) -> None:
        """See that the OCR package is there, if it is wanted.

        Raises:
            ValueError: It is not, with how to install it.
        """
        if self.ocr:
            require("rapidocr_onnxruntime", "ocr", self.name)

    def load(self) -> _Describer:
        return _Describer(Reader(self.name) if self.ocr else None)


class Described(NamedTuple):
    """The columns of one image, in the order of `Describe.writes`."""

    short_caption: str
    detailed_caption: str
    colours: Sequence[str]
    colour_shares: Sequence[float]
    brightness: float
    image_text: str | None = None


class _Describer:
    """`Describe` at work: measured in the threads, read by OCR in one."""

    def __init__(self, reader: Reader | None) -> None:
        self._reader = reader
        self.side = SIDE if reader else 2 * MEASURED_ON

    def prepare(
        self, image: Image.Image, labels: Sequence[str] | None, probabilities: Sequence[float] | None
    ) -> tuple[Described, Image.Image | None]:
        """What is said of an RGB image with its labels, and the image itself if it is to be read."""
        found = measure(image, labels or (), probabilities or ())
        said = Described(short(found), detailed(found), found.colours, found.shares, found.brightness)
        return said, image if self._reader else None

    def __call__(self, inputs: Sequence[tuple[Described, Image.Image | None]]) -> pa.Table:
        rows = [self._read(said, image) for said, image in inputs]
        columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(Describe.writes)]
        return pa.table(columns, schema=Describe.writes)

    def _read(self, said: Described, image: Image.Image | None) -> Described:
        lines = self._reader.lines(image) if self._reader and image else []
        if not lines:
            return said
        quoted = ", ".join(f"“{line}”" for line in lines[:_QUOTED])
        more = f"{said.detailed_caption} It has writing on it: {quoted}{', and more' if lines[_QUOTED:] else ''}."
        return said._replace(detailed_caption=more, image_text="\n".join(lines))


def short(found: Measured) -> str:
    """One sentence."""
    subject = _subject(found)
    shades = _shades(found)
    if subject is None:
        return f"{_kind(found)}, {_mostly(found, shades)}."
    return f"{_kind(found)} that {subject}, {_mostly(found, shades)}."


def detailed(found: Measured) -> str:
    """Some sentences."""
    sentences = [_what(found), _areas(found), _composition(found), _light(found)]
    return " ".join(sentence for sentence in sentences if sentence)


def _subject(found: Measured) -> str | None:
    """ "probably shows a tabby"; None where no class is probable enough to be named."""
    if not found.labels or found.probabilities[0] < _HINT:
        return None
    verb = _verb(found.probabilities[0])
    return f"{verb} {with_article(found.labels[0])}"


def _verb(probability: float) -> str:
    return "shows" if probability >= _SURE else "probably shows" if probability >= _LIKELY else "may show"


def _kind(found: Measured) -> str:
    return f"A {_SHAPES[_shape(found)]} image"


_SHAPES = {"panorama": "panoramic", "landscape": "wide", "portrait": "tall", "square": "square"}
_FORMS = {"panorama": "a panorama", "landscape": "wider than high", "portrait": "higher than wide", "square": "square"}


def _shape(found: Measured) -> str:
    if found.shape >= _PANORAMA:
        return "panorama"
    if found.shape >= _WIDE:
        return "landscape"
    return "portrait" if found.shape <= 1 / _WIDE else "square"


def _shades(found: Measured) -> list[str]:
    """The colours of a notable area; of an image without colour none but its greys."""
    named = [name for name, share in zip(found.colours, found.shares, strict=True) if share >= _NAMED]
    return (named or list(found.colours))[:3]


def _mostly(found: Measured, shades: Sequence[str]) -> str:
    if found.colourfulness < _GREY:
        return "in black and white"
    lead = "mostly" if found.shares[0] >= 0.5 else "largely" if found.shares[0] >= 0.35 else "in"
    return f"{lead} {_and(shades)}"


def _what(found: Measured) -> str:
    subject = _subject(found)
    if subject is None:
        return "What it shows is not among the classes that are known here."
    others = [
        with_article(label)
        for label, probability in zip(found.labels[1:3], found.probabilities[1:3], strict=True)
        if probability >= max(_HINT, found.probabilities[0] / 4)
    ]
    return f"The image {subject}{', or ' + ' or '.join(others) if others else ''}."


def _areas(found: Measured) -> str:
    if found.colourfulness < _GREY:
        return "It has no colours but shades of grey."
    told = [f"{name} covers {_portion(share)}" for name, share in zip(found.colours, found.shares, strict=True)]
    large = [text for text, share in zip(told, found.shares, strict=True) if share >= _NAMED][:3]
    text = _and(large or told[:1])
    return f"{text[0].upper()}{text[1:]} of it."


_PORTIONS = ((0.9, "nearly all"), (0.7, "three quarters"), (0.55, "more than half"), (0.45, "half"), (0.3, "a third"))


def _portion(share: float) -> str:
    small = "a quarter" if share >= 0.2 else "an eighth"
    return next((words for least, words in _PORTIONS if share >= least), small)


def _composition(found: Measured) -> str:
    place = int(np.argmax(found.detail))
    if found.detail[place] < _CONCENTRATED:
        return f"It is {_FORMS[_shape(found)]}, with its detail spread over the whole."
    row, side = _ROWS[place // 3], _COLUMNS[place % 3]
    where = "centre" if (row, side) == ("middle", "centre") else f"{row} {side}" if side != "centre" else row
    return f"It is {_FORMS[_shape(found)]}, and most of its detail is at the {where.replace('middle ', '')}."


def _light(found: Measured) -> str:
    light = "dark" if found.brightness < _DARK else "bright" if found.brightness > _BRIGHT else "moderately bright"
    contrast = "low" if found.spread < _FLAT else "high" if found.spread > _CONTRASTY else "moderate"
    colour = ""
    if found.colourfulness >= _GREY:
        colour = ", its colours vivid" if found.colourfulness >= _VIVID else ""
    return f"It is {light} and of {contrast} contrast{colour}."


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
