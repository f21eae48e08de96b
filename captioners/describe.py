"""Captions out of what is measured: offline, true as far as they go, and no substitute for a model that sees.

They say which of ImageNet's classes the image looks like and how sure that is, its colours, shape and light, and where
its detail lies. They know no people, relations, actions or writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pydantic import BaseModel, ConfigDict

from captioners.colours import colours
from captioners.labels import with_article
from manifests.schemas import column

_SURE, _LIKELY, _HINT = 0.6, 0.25, 0.1
"""Probabilities from which the class is named as "shows", "probably shows", "may show"; below it is not named."""

_SIDE = 128  # pixels that brightness and detail are measured on
_GREY = 8.0  # of Hasler and Süsstrunk's colourfulness: less is not seen as colour
_VIVID = 60.0
_DARK, _BRIGHT = 0.25, 0.65  # mean luma
_FLAT, _CONTRASTY = 0.12, 0.28  # standard deviation of luma
_NAMED = 0.12  # share of the area from which a colour is named
_WIDE, _PANORAMA = 1.15, 2.0  # width / height
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
_CONCENTRATED = 0.2  # share of the detail in one ninth of the image; evenly spread it is 0.11


class Describe(BaseModel):
    """`short_caption` and `detailed_caption` from labels, colours, composition and light.

    A class is named with how probable it is: from 0.6 "shows", from 0.25 "probably shows", from 0.1 "may show", below
    not at all. A colour is named from an eighth of the area. Wordings alternate by what is measured, never by chance.
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
        ]
    )

    def load(self) -> _Describer:
        return _Describer()


class Measured(NamedTuple):
    """What a description is made of.

    Attributes:
        labels, probabilities: Classes, the most probable first.
        colours, shares: Names and areas, the largest first.
        brightness, spread: Mean and standard deviation of luma, 0 to 1.
        colourfulness: Hasler and Süsstrunk 2003, 0 to about 110.
        shape: Width / height.
        detail: Share of the gradient in each of 3 × 3 fields, row by row.
    """

    labels: Sequence[str]
    probabilities: Sequence[float]
    colours: Sequence[str]
    shares: Sequence[float]
    brightness: float
    spread: float
    colourfulness: float
    shape: float
    detail: npt.NDArray[np.float64]


class _Describer:
    """`Describe` at work; all of it happens in the threads."""

    side = 2 * _SIDE

    def prepare(
        self, image: Image.Image, labels: Sequence[str] | None, probabilities: Sequence[float] | None
    ) -> tuple[str, str, list[str], list[float], float]:
        """An RGB image and its labels to the columns of `Describe.writes`."""
        found = measure(image, labels or (), probabilities or ())
        return short(found), detailed(found), list(found.colours), list(found.shares), found.brightness

    def __call__(self, inputs: Sequence[tuple[str, str, list[str], list[float], float]]) -> pa.Table:
        columns = [pa.array([row[n] for row in inputs], field.type) for n, field in enumerate(Describe.writes)]
        return pa.table(columns, schema=Describe.writes)


def measure(image: Image.Image, labels: Sequence[str], probabilities: Sequence[float]) -> Measured:
    """Everything that a description says of an RGB image."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"), np.float64) / 255
    names, shares = colours(image)
    return Measured(
        labels,
        probabilities,
        names,
        shares,
        float(luma.mean()),
        float(luma.std()),
        _colourfulness(np.asarray(small, np.float64)),
        image.width / image.height,
        _detail(luma),
    )


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


def _colourfulness(rgb: npt.NDArray[np.float64]) -> float:
    """Hasler and Süsstrunk 2003, equation 7, of (rows, columns, 3), 0 to 255."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def _detail(luma: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the gradient's magnitude in each of 3 × 3 fields; evenly where there is none."""
    magnitude = np.hypot(*np.gradient(luma))
    fields = [np.array_split(band, 3, axis=1) for band in np.array_split(magnitude, 3, axis=0)]
    sums = np.array([field.sum() for band in fields for field in band])
    total = float(sums.sum())
    return sums / total if total > 1e-6 else np.full(9, 1 / 9)
