"""Tiles: an image with its key, status, values and texts, as pages and notebooks show it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.reporting.page import environment, number, shortened
from pipeline.reporting.thumbnails import Thumbnail

if TYPE_CHECKING:
    from markupsafe import Markup

DESCRIBED_BY = ("short_caption", "detailed_caption", "summary", "dense_caption", "coarse_caption", "alt_text")
"""Columns with a text about an image or clip, the best one first."""

READ = ("key", "status", "drop_reason")
"""Columns of the manifest that every tile shows."""

_ALT, _VALUE, _TEXT = 160, 80, 700  # characters


@dataclass(frozen=True)
class Tile:
    """One image on a page. Templates escape the texts; they are cut and visible already.

    Attributes:
        id: The image's id.
        key: Its key, or another name of it.
        status: `kept`, `dropped`, `error` or `pending`.
        thumbnail: The picture, or the reason why there is none.
        alt: What the picture shows, for readers who do not see it: the key, and a caption if there is one.
        label: Its part in the gallery, such as `longest`; may be empty.
        reason: Why the image was dropped; may be empty.
        values: Names and values of columns.
        texts: Names and texts of columns, such as captions.
    """

    id: int
    key: str
    status: str
    thumbnail: Thumbnail
    alt: str
    label: str = ""
    reason: str = ""
    values: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()


def tile(
    row: Mapping[str, Any], thumbnail: Thumbnail, columns: Sequence[str] = (), label: str = "", key: str = ""
) -> Tile:
    """Return the tile of a row.

    Args:
        row: `id`, the columns `READ`, those of `DESCRIBED_BY` that the run has, and `columns`.
        thumbnail: Its picture.
        columns: The columns to show beside the key, status and reason. Long texts stand below the others.
        label: As in `Tile`.
        key: Another name than the row's key.
    """
    name = key or str(row.get("key") or row["id"])
    caption = next((str(row[column]) for column in DESCRIBED_BY if row.get(column)), "")
    shown = [column for column in columns if column not in ("id", *READ)]
    texts = [column for column in shown if isinstance(row[column], str) and _is_long(column, row[column])]
    return Tile(
        id=row["id"],
        key=shortened(name, _VALUE),
        status=shortened(str(row.get("status") or ""), _VALUE),
        thumbnail=thumbnail,
        alt=shortened(f"{name}: {caption}" if caption else name, _ALT),
        label=shortened(label, _VALUE),
        reason=shortened(str(row.get("drop_reason") or ""), _VALUE * 2),
        values=tuple((column, value_text(row[column])) for column in shown if column not in texts),
        texts=tuple((column, shortened(row[column], _TEXT)) for column in texts),
    )


def value_text(value: object) -> str:
    """Return a value of a column as a short text. Integers have no separators: they may be ids."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes"
    if isinstance(value, (list, tuple)):  # of a long list, only what is shown is made to text
        return shortened(", ".join(map(value_text, value[:_VALUE])), _VALUE)
    return shortened(str(value), _VALUE)


def tiles_html(tiles: Iterable[Tile], kind: str = "") -> Markup:
    """Return tiles as HTML, as the macro of `templates/tiles.html` makes it; `kind` is `small`, `wide` or empty."""
    from markupsafe import Markup

    macros = environment().get_template("tiles.html").module
    return Markup(macros.tiles(list(tiles), kind))  # type: ignore[attr-defined]


def _is_long(column: str, text: str) -> bool:
    return column in DESCRIBED_BY or column.endswith("_caption") or len(text) > _VALUE
