"""Strips of frames: what pages show of a clip, out of the frames that its run has stored. No film is opened."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import polars as pl
from PIL import Image

from core.errors import BadSampleError
from core.images import decode
from manifests.run import Run
from manifests.tables import Table
from pipeline.stages.over_frames import FRAMES

SHOWN = 4
"""Frames of a strip: the first, the last, and those between."""

_SIDE = 224  # pixels, longer side of a frame in a strip


def strips(run: Run, ids: pl.DataFrame) -> Iterator[tuple[int, bytes | str]]:
    """Yield the id of each clip and its strip, a JPEG, or the reason why there is none.

    Args:
        run: A run of clips.
        ids: The clips, column `id`, each once.
    """
    table = next((stage.table for stage in run.stages if FRAMES in stage.table.schema.names), None)
    if table is None:
        yield from ((id_, "no frames yet: the stage `frames` has not run") for id_ in ids["id"])
        return
    stored = set()
    for id_, error, frames in _rows(table, ids):
        stored.add(id_)
        try:
            yield id_, strip(frames) if frames else (error or "no frames: nothing is stored")
        except BadSampleError as problem:
            yield id_, str(problem)
    missing = (id_ for id_ in ids["id"] if id_ not in stored)
    yield from ((id_, "no frames yet: the clip did not reach the stage `frames`") for id_ in missing)


def _rows(table: Table, ids: pl.DataFrame) -> Iterator[tuple[int, str | None, Sequence[bytes] | None]]:
    """Yield id, error and frames of clips, part by part: frames of many clips do not fit into memory."""
    where, parts = table.locate()
    places = where.filter(pl.col("id").is_in(ids["id"].implode())).collect(engine="streaming")
    for (number,), rows in places.group_by("part", maintain_order=True):
        stored = pl.DataFrame(table.read(parts[int(str(number))], ["id", "error", FRAMES]))
        yield from stored.join(rows, on="id", how="semi").iter_rows()


def strip(frames: Sequence[bytes]) -> bytes:
    """Return up to four frames in one picture, as JPEG: in two rows if they are wide, else side by side.

    Raises:
        BadSampleError: A frame cannot be decoded.
    """
    count = min(SHOWN, len(frames))
    chosen = [frames[round(n * (len(frames) - 1) / max(count - 1, 1))] for n in range(count)]
    pictures = [decode(frame, _SIDE) for frame in chosen]
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE))
    width, height = pictures[0].size
    columns = 2 if count == SHOWN and width >= height else count
    sheet = Image.new("RGB", (width * columns, height * -(-count // columns)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    encoded = io.BytesIO()
    sheet.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
