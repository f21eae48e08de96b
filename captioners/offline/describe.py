"""Captions from measurements, offline. They are no substitute for a vision-language model.

They state the ImageNet classes that a classifier finds and how sure it is, the image's colours, shape and light, and
where its detail is. They do not cover people, relations or actions, and text in the image only with OCR. The sentences
are in `captioners/offline/templates.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import PIL
import pyarrow as pa
from PIL.Image import Image

from captioners.offline.measurements import MEASURED_ON, measure
from captioners.offline.templates import detailed, short
from core.ocr import SIDE, Reader
from core.stages import ImageFacts, ImageStage
from manifests.schemas import column

_QUOTED = 5  # lines of text in the image that are quoted
_SURE = 0.7  # lines with a lower confidence are left out; in photographs most of them are not text


class Describe(ImageStage):
    """`short_caption` and `detailed_caption` from labels, colours, composition and light.

    The wording of a class depends on its probability by the classifier of `conse`: from 0.9 "shows", from 0.5 "probably
    shows", from 0.1 "may show" or "perhaps"; below 0.1, or without labels, no class is named. The classifier knows 1000
    classes and can be sure of a wrong one: it gives the eye of `skimage.data.microaneurysms` 0.72 for a worm.

    Colours are the 11 basic terms of English; up to three with at least 12 % of the area are named. "Black and white"
    means that practically no pixel has a colour. Shares are put into words, from "practically all" (97 % and more) over
    "about half" (42 to 58 %) down to "about an eighth" and "a small part". Dark is a mean luma below 0.25, bright above
    0.65. Contrast is low below a standard deviation of 0.12, high above 0.28. Colours are muted below a colourfulness
    of 15, vivid from 59 (Hasler and Süsstrunk 2003). Detail is the gradient of luma in 3 × 3 fields: "most" means at
    least half of it in one field, "densest" a fifth. Measurements choose between equivalent sentences, so the same
    image always gets the same caption.

    Attributes:
        ocr: Whether to read text in the image with RapidOCR (extra `ocr`): about a second per image and core.
    """

    name: ClassVar = "describe"
    reads: ClassVar = ("image", "labels", "label_probabilities")
    writes: ClassVar = pa.schema(
        [
            column("short_caption", pa.string(), "One sentence on the measured class, shape and colours"),
            column("detailed_caption", pa.string(), "Sentences on class, colours, composition and light"),
            column("colours", pa.list_(pa.string()), "Colours, out of 11 basic terms, largest area first"),
            column("colour_shares", pa.list_(pa.float32()), "Share of the area for each of `colours`, 0 to 1"),
            column("brightness", pa.float32(), "Mean luma (Rec. 601): 0 black, 1 white", 0, 1),
            column("image_text", pa.string(), "Text in the image, by OCR; null: none detected, or OCR is off"),
        ]
    )

    ocr: bool = False

    @property
    def packages(self) -> Mapping[str, str]:
        return {"rapidocr": "ocr"} if self.ocr else {}

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


class _Describer(ImageFacts):
    """`ImageFacts` of `describe`: threads measure images, a single thread runs OCR."""

    def __init__(self, reader: Reader | None) -> None:
        self._reader = reader
        self.provenance = {"pillow": PIL.__version__, "numpy": np.__version__, **(reader.provenance if reader else {})}
        self.side = SIDE if reader else 2 * MEASURED_ON
        self.has_model = reader is not None

    def prepare(
        self, image: Image, labels: Sequence[str | None] | None, probabilities: Sequence[float | None] | None
    ) -> tuple[Described, Image | None]:
        """Return the description of an RGB image with its labels, and the image itself if OCR is to read it."""
        numbers = measure(image, labels, probabilities)
        said = Described(short(numbers), detailed(numbers), numbers.colours, numbers.shares, numbers.brightness)
        return said, image if self._reader else None

    def __call__(self, inputs: Sequence[tuple[Described, Image | None]]) -> pa.Table:
        rows = [self._read(said, image) for said, image in inputs]
        columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(Describe.writes)]
        return pa.table(columns, schema=Describe.writes)

    def _read(self, said: Described, image: Image | None) -> Described:
        found = self._reader.lines(image) if self._reader and image else []
        lines = [line.text for line in found if line.confidence >= _SURE]
        if not lines:
            return said
        quoted = [*(f"“{line}”" for line in lines[:_QUOTED]), *(["and more"] if lines[_QUOTED:] else [])]
        more = f"{said.detailed_caption} The writing on it seems to be {', '.join(quoted)}."
        return said._replace(detailed_caption=more, image_text="\n".join(lines))
