"""Marks of regions in dialogs, `<region1>`, become boxes as VideoLLaMA3 writes them in questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import BadSampleError
from core.record_media import Region
from core.records import Role, Turn
from model.training.data.importers.regions import Picture
from model.training.data.importers.turns import NO_MARK, dialog_turns

AS_BOXES = "region_marks_as_boxes"
"""The transform of a record."""


@dataclass(frozen=True)
class Place:
    """What a mark stands for: its text, and its region, whose label is the mark."""

    text: str
    region: Region


def marked_turns(
    dialog: Sequence[tuple[Role, str]], mark: re.Pattern[str], places: Sequence[Place], picture: Picture
) -> tuple[list[Turn], list[str]]:
    """Return turns with boxes in place of marks, and notes.

    Args:
        dialog: Who says what.
        mark: The marks; their first group is the place's number, from 1.
        places: What they stand for.
        picture: The picture, which comes first if the dialog has no `<image>`.

    Raises:
        BadSampleError: A mark has no place.
    """
    written: list[tuple[Role, str]] = []
    named: list[tuple[Region, ...]] = []
    for role, text in dialog:
        numbers = [int(number) for number in mark.findall(text)]
        if unplaced := [number for number in numbers if not 0 < number <= len(places)]:
            raise BadSampleError(f"a region without a place: number {unplaced[0]} of {len(places)}")
        written.append((role, mark.sub(lambda match: places[int(match[1]) - 1].text, text)))
        named.append(tuple(places[number - 1].region for number in numbers))
    turns, notes = dialog_turns(written, [picture.medium])
    turns = [turn.model_copy(update={"regions": regions}) for turn, regions in zip(turns, named, strict=True)]
    return turns, [note for note in notes if note != NO_MARK]
