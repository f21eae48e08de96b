"""Thumbnails: small JPEGs of a run's images as data URIs, or the reasons why there is none."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import polars as pl

from core.cpus import count_cpus
from core.errors import BadSampleError
from core.images import decode
from manifests.run import Run
from pipeline.execution.decoders import Decoders
from pipeline.execution.lookahead import started_ahead
from pipeline.pools.images import Failure
from pipeline.reporting.image_bytes import ImageBytes, read_images

SIDE = 224
"""Longer side of a thumbnail in pixels, at most."""

BUDGET = 5 << 20
"""Bytes of all thumbnails of a page, at most; as text in a page they take a third more."""

_QUALITY = 72
_SECONDS = 10.0  # for one image
_AHEAD = 16  # images that are decoded before they are needed


@dataclass(frozen=True)
class Thumbnail:
    """One thumbnail.

    Attributes:
        uri: A data URI of the JPEG; empty if there is none.
        width, height: Its size in pixels; 0 if there is none.
        reason: Why there is none; empty if there is one.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def thumbnails(run: Run, ids: pl.DataFrame, side: int = SIDE, budget: int = BUDGET) -> dict[int, Thumbnail]:
    """Return a thumbnail of each image. No image is an error: one that cannot be shown has a reason.

    Args:
        run: The run.
        ids: The images, column `id`.
        side: Longer side in pixels, at most. Images are upright and not enlarged.
        budget: Bytes of all thumbnails together; beyond it, images have a reason instead.

    Raises:
        UserError: As `read_images` raises it.
    """
    shown: dict[int, Thumbnail] = {}
    used = 0
    for id_, small in _small(read_images(run, ids.select("id").unique(maintain_order=True)), side):
        if isinstance(small, Failure):
            shown[id_] = Thumbnail(reason=small.error)
        elif used + len(small.data) > budget:
            shown[id_] = Thumbnail(reason="left out: the page is full")
        else:
            used += len(small.data)
            text = base64.b64encode(small.data).decode()
            shown[id_] = Thumbnail(f"data:image/jpeg;base64,{text}", small.width, small.height)
    return shown


@dataclass(frozen=True)
class _Small:
    data: bytes
    width: int
    height: int


def _small(images: Iterator[ImageBytes], side: int) -> Iterator[tuple[int, _Small | Failure]]:
    """Decode images in threads, each within a time limit."""
    with closing(Decoders(min(4, count_cpus()), _SECONDS)) as decoders:
        tasks = ((image.id, decoders.submit(_scaled, image, side)) for image in images)
        for id_, task in started_ahead(tasks, _AHEAD):
            yield id_, decoders.result(task)


def _scaled(image: ImageBytes, side: int) -> _Small | Failure:
    if image.data is None:
        return Failure(image.error)
    try:
        picture = decode(image.data, side)
        picture.thumbnail((side, side))
        picture.info.clear()  # a comment or profile of the original would be written too
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=_QUALITY, optimize=True)
    except BadSampleError as error:
        return Failure(" ".join(str(error).split()))
    except MemoryError:
        return Failure("too large: not enough memory to decode and scale it")
    return _Small(encoded.getvalue(), *picture.size)
