"""Captions of the subset `ocr`: the short caption, then the texts in the image with their boxes.

The form is that of VideoLLaMA 3's second stage (arXiv 2501.13106, section 4): `A shop at night. The texts in this image
are OPEN<box>[102,40,310,95]</box>, Mind the step<box>[88,700,420,760]</box>.` Boxes are in thousandths of the image.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from core.errors import UserError
from core.text import code_span
from manifests.run import Run

TEXTS, BOXES = "ocr_texts", "ocr_boxes"
"""Columns of the stage `ocr`."""

NEEDED = {"short_caption": "vl3syn caption short", TEXTS: "vl3syn filter ocr", BOXES: "vl3syn filter ocr"}
"""The columns that such a caption is made of, each with the command that computes it."""

_TAG = re.compile(r"<\s*(/?)\s*box\s*>", re.IGNORECASE)
_BOX = re.compile(r"\[\s*[0-9]{1,4}(?:\s*,\s*[0-9]{1,4}){3}\s*\]")
_ENDS = tuple(".!?…。！？\"'”’)")


def missing_command(columns: Container[str]) -> str:
    """Return the command that computes what `ocr` captions lack, or an empty text if nothing is missing."""
    return next((command for name, command in NEEDED.items() if name not in columns), "")


def ocr_caption(caption: str | None, texts: Sequence[str] | None, boxes: Sequence[Sequence[int]] | None) -> str | None:
    """Return a caption of the subset `ocr`, or None if there is no short caption or no text.

    A `<box>` within a text is spelled as words, `< box >`. A text that itself reads like a box, `[1,2,3,4]`, is left
    out: readers of boxes would take it for a place.
    """
    pairs = zip(texts or (), boxes or (), strict=True)
    things = [
        f"{_TAG.sub(_spelled, text)}<box>[{','.join(map(str, box))}]</box>"
        for text, box in pairs
        if text.strip() and not _BOX.search(text)
    ]
    sentence = (caption or "").strip()
    if not things or not sentence:
        return None
    return f"{sentence}{'' if sentence.endswith(_ENDS) else '.'} The texts in this image are {', '.join(things)}."


def ocr_captions(rows: pa.Table) -> pa.Array:
    """Return the captions of rows with the columns `NEEDED`; null for rows that are not in the subset."""
    columns = (rows[name].to_pylist() for name in NEEDED)
    return pa.array([ocr_caption(*row) for row in zip(*columns, strict=True)], pa.string())


def refuse_without_text(run: Run, kept: pl.DataFrame) -> None:
    """Refuse a subset that would be empty.

    Args:
        run: The run.
        kept: The images to publish, column `id`.

    Raises:
        UserError: No text was found in any of them.
    """
    texts = _stage(run).table.scan(["id", TEXTS]).filter(pl.col(TEXTS).list.len() > 0).select("id")
    if not kept.join(texts.collect(engine="streaming"), on="id", how="semi").height:
        raise UserError("nothing to publish in the subset ocr: no text was found in any kept image")


def card_section(run: Run, rows: int) -> str:
    """Return what the dataset card says about the subset.

    Args:
        run: The run.
        rows: Number of images in the subset.
    """
    table, least = _stage(run).table, _entry(run).get("min_confidence")
    reader = f"RapidOCR {table.recorded('rapidocr') or ''}".strip()
    weights = str(table.recorded("weights") or "")[:16]
    hashed = f", weights {weights}" if weights else ""
    sure = "" if least is None else f" with a confidence of at least {least}"
    form = code_span("The texts in this image are TEXT<box>[x0,y0,x1,y1]</box>, ….")
    return (
        f"{rows:,} of the images, those with text. `caption` is the short caption, then the lines of text that "
        f"{reader} (PP-OCR{hashed}) has read{sure}, in reading order, in the form of VideoLLaMA 3's stage 2: {form} "
        "Boxes are in thousandths of the image's width and height. Nobody has checked texts and boxes."
    )


def _stage(run: Run) -> Any:
    return next(stage for stage in run.stages if TEXTS in stage.table.writes.names)


def _entry(run: Run) -> dict[str, Any]:
    """Return the recipe's entry of the stage."""
    stages = zip(run.stages, run.recipe.get("stages") or [], strict=True)
    return next(entry for stage, entry in stages if TEXTS in stage.table.writes.names)


def _spelled(tag: re.Match[str]) -> str:
    return f"< {tag[1]}box >"
