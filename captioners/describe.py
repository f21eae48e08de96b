"""Captions out of what is measured: offline, true as far as they go, and no substitute for a model that sees.

They say which of ImageNet's classes the image looks like to a classifier and how sure it is, the colours, shape and
light of the image, and where its detail lies. They know no people, relations or actions, and writing only where OCR is
asked for. `captioners/sentences.py` has the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import PIL
import pyarrow as pa
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from captioners.measured import MEASURED_ON, measure
from captioners.sentences import detailed, short
from captioners.writing import SIDE, Reader
from filters.weights import require
from manifests.schemas import column

_QUOTED = 5  # lines of writing


class Describe(BaseModel):
    """`short_caption` and `detailed_caption` from labels, colours, composition and light.

    A class is said with how probable it is to the classifier of `conse`: from 0.9 "shows", from 0.5 "probably shows",
    from 0.1 "may show" or "perhaps"; below that, or without labels, no class is said. The classifier knows 1000 classes
    and is sometimes sure of one that is not there: it gives the eye of `skimage.data.microaneurysms` 0.72 for a worm.

    Colours are the 11 basic terms of English, the three largest from 12 % of the area on; "black and white" is said
    where next to no pixel has a colour. Shares are said in words, from "practically all" (97 % and more) over "about
    half" (42 to 58 %) down to "about an eighth". Dark is a mean luma below 0.25, bright one above 0.65; contrast is low
    below a standard deviation of 0.12, high above 0.28; colours are muted below a colourfulness of 15, vivid from 59
    (Hasler and Süsstrunk 2003). Detail is the gradient of luma in 3 × 3 fields: "most" is half of it in one field,
    "densest" a fifth. There are several ways to say a thing, chosen by what is measured: the same image is always
    described in the same words.

    Attributes:
        ocr: Read the writing on it too, with RapidOCR (extra `ocr`): about a second per image and core.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar = "describe"
    version: ClassVar = 1
    reads: ClassVar = ("image", "labels", "label_probabilities")
    writes: ClassVar = pa.schema(
        [
            column("short_caption", pa.string(), "One sentence on what was measured: class, shape, colours"),
            column("detailed_caption", pa.string(), "Some sentences: class, colours, composition, light"),
            column("colours", pa.list_(pa.string()), "Names of its colours, 11 basic terms, the largest area first"),
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
            UserError: It is not, with how to install it.
        """
        if self.ocr:
            require("rapidocr", "ocr", self.name)

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
        self.made_by = {"pillow": PIL.__version__, "numpy": np.__version__, **(reader.made_by if reader else {})}
        self.side = SIDE if reader else 2 * MEASURED_ON

    def prepare(
        self, image: Image, labels: Sequence[str | None] | None, probabilities: Sequence[float | None] | None
    ) -> tuple[Described, Image | None]:
        """What is said of an RGB image with its labels, and the image itself if it is to be read."""
        found = measure(image, labels, probabilities)
        said = Described(short(found), detailed(found), found.colours, found.shares, found.brightness)
        return said, image if self._reader else None

    def __call__(self, inputs: Sequence[tuple[Described, Image | None]]) -> pa.Table:
        rows = [self._read(said, image) for said, image in inputs]
        columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(Describe.writes)]
        return pa.table(columns, schema=Describe.writes)

    def _read(self, said: Described, image: Image | None) -> Described:
        lines = self._reader.lines(image) if self._reader and image else []
        if not lines:
            return said
        quoted = [*(f"“{line}”" for line in lines[:_QUOTED]), *(["and more"] if lines[_QUOTED:] else [])]
        more = f"{said.detailed_caption} The writing on it seems to be {', '.join(quoted)}."
        return said._replace(detailed_caption=more, image_text="\n".join(lines))
