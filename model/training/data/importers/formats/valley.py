"""Valley: LLaVA's form. The ids of its VATEX rows say which clip of a film they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from core.records import Licence, Medium
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.formats import llava

_VATEX = re.compile(r"(?P<film>(?:.*/)?[\w-]{11})_(?P<start>\d{6})_(?P<end>\d{6})(?P<ending>\.\w+)?")


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry. A film named as in VATEX, `<id>_000010_000020`, is a clip that was cut out."""
    for draft in llava.read(row, options):
        media = [_clip(medium, options.get("films") == "whole") for medium in draft.media]
        transforms = ["clip_of_name"] if media != list(draft.media) else []
        yield replace(draft, media=media, transforms=transforms)


def _clip(medium: Medium, is_whole: bool) -> Medium:
    named = _VATEX.fullmatch(medium.path)
    if medium.type != "video" or named is None:
        return medium
    start, end = float(named["start"]), float(named["end"])
    path = named["film"] + (named["ending"] or "") if is_whole else medium.path
    return Medium(key=medium.key, type="video", path=path, start=start, end=end, is_cut=not is_whole)


FORMAT = Format(
    name="valley",
    about="Valley: LLaVA's form, and the clips that the names of VATEX say",
    read=read,
    fits=lambda entry: False,  # its rows look like those of llava
    profiles=(Profile("valley", Licence(name="CC-BY-NC-4.0", non_commercial=True, gated=True)),),
    options={"films": "`whole`: films of VATEX are not cut, `<id>.mp4` in place of `<id>_000010_000020.mp4`"},
)
