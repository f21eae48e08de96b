"""Sentences from the measurements of `describe`. They state no more, and with no more certainty, than was measured."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from captioners.offline.labels import with_article
from captioners.offline.measurements import Measured

SURE, LIKELY, HINT = 0.9, 0.5, 0.1
"""Least probabilities of a class for "shows", "probably shows" and "may show"; below the last it is not named."""

_GREYS = frozenset(("black", "white", "grey"))
_GREY = 10  # largest `tint` of a grey image; above 0, because JPEG adds a little
_MUTED, _VIVID = 15, 59  # colourfulness rated slight, and quite colourful (Hasler and Süsstrunk 2003)
DARK, BRIGHT = 0.25, 0.65  # mean luma
_EVEN = 0.05  # luma
_FLAT, _CONTRASTY = 0.12, 0.28  # standard deviation of luma
_NEARLY_ALL = 0.93
_NAMED = 0.12  # share of the area from which a colour is named
_SQUARE, _NEARLY, _PANORAMA = 1.02, 1.15, 2.0  # longer / shorter side
_MOST, _DENSEST, _SPREAD = 0.5, 0.2, 0.145  # share of detail in the field with the most; 0.11 if even
_LEAST = 0.08  # smallest share of a field if the detail is called even
_ROWS, _COLUMNS = ("upper", "", "lower"), ("left", "", "right")
_PORTIONS = (  # least share for each phrase, midway between the shares that two phrases mean
    (0.97, "practically all"),
    (_NEARLY_ALL, "nearly all"),
    (0.83, "most"),
    (0.71, "about three quarters"),
    (0.58, "about two thirds"),
    (0.42, "about half"),
    (0.29, "about a third"),
    (0.21, "about a quarter"),
    (0.146, "about a sixth"),
    (0.11, "about an eighth"),
    (0, "a small part"),
)


def short(image: Measured) -> str:
    """Return one sentence: "A wide image that probably shows a tabby, mostly grey and brown."."""
    form, colours = SHAPES[shape(image)][0], shades(image)
    if not _sure_enough(image):
        return f"A {form} image, {colours}."
    subject = f"{_verb(image.probabilities[0])} {with_article(image.labels[0])}"
    return _pick(
        image,
        f"A {form} image that {subject}, {colours}.",
        f"This {form} image, {colours}, {subject}.",
        f"A {form} image, {colours}, that {subject}.",
    )


def detailed(image: Measured) -> str:
    """Return four to six sentences, on classes, colours, shape, detail and light."""
    parts = [_what(image), _others(image), _areas(image), _form(image), _where(image), _light(image)]
    return " ".join(part for part in parts if part)


def _pick(image: Measured, *templates: str) -> str:
    """Choose one of several equivalent sentences by a hash of the measurements: the same image gets the same words."""
    numbers = (image.brightness, image.spread, *image.shares)
    key = " ".join((str(len(templates)), templates[0][:8], *(f"{number:.2f}" for number in numbers)))
    return templates[zlib.crc32(key.encode()) % len(templates)]


def _sure_enough(image: Measured) -> bool:
    return bool(image.labels) and image.probabilities[0] >= HINT


def _verb(probability: float) -> str:
    return "shows" if probability >= SURE else "probably shows" if probability >= LIKELY else "may show"


def _rivals(image: Measured) -> list[str]:
    """Return the second and third class, with articles, if they are probable enough to be named."""
    pairs = zip(image.labels[1:3], image.probabilities[1:3], strict=True)
    return [with_article(label) for label, probability in pairs if probability >= HINT]


def _what(image: Measured) -> str:
    if not _sure_enough(image):
        return ""
    first, probability = with_article(image.labels[0]), image.probabilities[0]
    if probability >= LIKELY:
        return f"The image {_verb(probability)} {first}."
    named = _list([first, *_rivals(image)], "or")
    return _pick(image, f"The image may show {named}.", f"Perhaps it shows {named}.")


def _others(image: Measured) -> str:
    """Name the other classes if the first is probable; otherwise `_what` has named them already."""
    rivals = _rivals(image)
    if not rivals or image.probabilities[0] < LIKELY:
        return ""
    named = _list(rivals, "or")
    return _pick(image, f"It could also be {named}.", f"Less probably it is {named}.")


def _colourless(image: Measured) -> bool:
    return image.tint <= _GREY and set(image.colours) <= _GREYS


def _named(image: Measured) -> list[tuple[str, float]]:
    """Return at most three colours of at least 12 % of the area, else the largest one, with their shares."""
    pairs = list(zip(image.colours, image.shares, strict=True))
    return ([pair for pair in pairs if pair[1] >= _NAMED] or pairs[:1])[:3]


def shades(image: Measured) -> str:
    """Return the colours in words: "mostly grey and brown", "in black and white"."""
    if _colourless(image):
        return "in black and white"
    named = _named(image)
    names, together = _list([name for name, _ in named]), sum(share for _, share in named)
    if image.shares[0] >= _NEARLY_ALL:
        return f"nearly all {names}"
    return f"{'mostly' if together >= 0.5 else 'partly'} {names}"


def _areas(image: Measured) -> str:
    named = [(name, _portion(share)) for name, share in _named(image)]
    lead = "it is black and white, without any colour: " if _colourless(image) else ""
    (name, portion), *rest = named
    by_portion = _list([f"{portion} of it is {name}", *(f"{portion} {name}" for name, portion in rest)])
    by_colour = _list([f"{name} covers {portion}", *(f"{name} {portion}" for name, portion in rest)])
    chosen = lead + _pick(image, f"{by_portion}.", f"{by_colour} of it.")
    return chosen[0].upper() + chosen[1:]


def _portion(share: float) -> str:
    return next(words for least, words in _PORTIONS if share >= least)


SHAPES = {  # for each form, the word before a noun, and a clause
    "panorama": ("panoramic", "a panorama, at least twice as wide as high"),
    "landscape": ("wide", "in landscape format, wider than high"),
    "square": ("square", "square"),
    "nearly": ("nearly square", "nearly square"),
    "portrait": ("tall", "in portrait format, higher than wide"),
    "strip": ("tall and narrow", "in portrait format, at least twice as high as wide"),
}


def shape(image: Measured) -> str:
    """Return the form of an image, a key of `SHAPES`."""
    longer = max(image.shape, 1 / image.shape)
    if longer < _NEARLY:
        return "square" if longer <= _SQUARE else "nearly"
    if image.shape > 1:
        return "panorama" if longer >= _PANORAMA else "landscape"
    return "strip" if longer >= _PANORAMA else "portrait"


def _form(image: Measured) -> str:
    form = SHAPES[shape(image)][1]
    return _pick(image, f"It is {form}.", f"The image is {form}.", f"The picture is {form}.")


def _where(image: Measured) -> str:
    if image.detail is None:
        return "There is hardly any detail on it."
    most = float(image.detail.max())
    if most >= _DENSEST:
        where = _position(int(np.argmax(image.detail)))
        if most >= _MOST:
            return f"Most of its detail is {where}."
        return _pick(image, f"Its detail is densest {where}.", f"There is more detail {where} than elsewhere.")
    if most < _SPREAD and image.detail.min() >= _LEAST:
        return _pick(image, "Its detail is spread fairly evenly.", "No part of it has much more detail than another.")
    return _pick(
        image,
        "Its detail is spread unevenly, with no clear centre.",
        "Some parts of it have more detail than others, but none stands out.",
    )


def _position(field: int) -> str:
    """Return the position of a field: "in the upper left", "at the top", "on the right", "in the centre"."""
    row, column = _ROWS[field // 3], _COLUMNS[field % 3]
    if row and column:
        return f"in the {row} {column}"
    if row:
        return "at the top" if row == "upper" else "at the bottom"
    return f"on the {column}" if column else "in the centre"


def _light(image: Measured) -> str:
    light = "dark" if image.brightness < DARK else "bright" if image.brightness > BRIGHT else "moderately bright"
    where = "all over" if image.evenness < _EVEN else "on the whole"
    contrast = "low" if image.spread < _FLAT else "high" if image.spread > _CONTRASTY else "moderate"
    shown = "muted" if image.colourfulness < _MUTED else "vivid" if image.colourfulness >= _VIVID else ""
    colours = f"its colours are {shown}" if shown and not _colourless(image) else ""
    return _pick(
        image,
        f"It is {light} {where} and of {contrast} contrast{colours and '; '}{colours}.",
        f"{where.capitalize()}, it is {light}; its contrast is {contrast}{colours and ' and '}{colours}.",
    )


def _list(words: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
