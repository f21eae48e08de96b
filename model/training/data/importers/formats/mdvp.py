"""MDVP: LLaVA's form, with boxes or points that `<Region 1>` and `<Mark 1>` stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BadSampleError
from core.record_media import Region
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.region_marks import AS_BOXES, Place, marked_turns
from model.training.data.importers.regions import PICTURES, Picture, box_of, picture_of
from model.training.data.importers.turns import image, path_text, said_of

_MARK = re.compile(r"<(?:Region|Mark) ([0-9]{1,4})>")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry."""
    entry = row.entry
    name = path_text(entry.get("image")).removeprefix(options.get("prefix", ""))
    picture = picture_of(image(name), entry, options)
    given = {key: entry[key] for key in ("bbox", "points") if entry.get(key)}
    if len(given) != 1 or not isinstance(listed := next(iter(given.values())), list):
        raise BadSampleError("not one of `bbox` and `points`: it is not clear what the marks stand for")
    place = _box if "bbox" in given else _point
    places = [place(picture, number, numbers) for number, numbers in enumerate(listed, 1)]
    turns, notes = marked_turns(said_of(entry.get("conversations")), _MARK, places, picture)
    yield Draft(
        turns,
        [picture.medium],
        original_id=entry.get("id"),
        task="region_chat",
        notes=notes,
        transforms=[AS_BOXES],
    )


def _box(picture: Picture, number: int, numbers: Any) -> Place:
    box = box_of(numbers)
    return Place(picture.text(box, "pixel_xywh"), picture.region(box, "pixel_xywh", label=f"Region {number}"))


def _point(picture: Picture, number: int, numbers: Any) -> Place:
    """Return a point as `[x,y]`; its region is a box without an area."""
    if not isinstance(numbers, list) or len(numbers) != 2:
        raise BadSampleError(f"no point: {str(numbers)[:100]}")
    box = box_of([*numbers, *numbers])
    if not (0 <= box[0] <= picture.width and 0 <= box[1] <= picture.height):
        raise BadSampleError(f"point outside of the picture: {list(numbers)} in {picture.width}x{picture.height}")
    text = f"[{round(box[0] * 1000 / picture.width)},{round(box[1] * 1000 / picture.height)}]"
    return Place(text, Region(media=picture.medium.key, box=box, system="pixel_xyxy", label=f"Mark {number}"))


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"image", "conversations"} <= entry.keys() and bool({"bbox", "points"} & entry.keys())


FORMAT = Format(
    name="mdvp",
    about="MDVP: LLaVA's form with boxes or points",
    read=read,
    fits=_fits,
    over=("llava",),
    profiles=(Profile("mdvp"),),
    options={"prefix": "start of the paths that is taken off: they are absolute", **PICTURES},
)
