"""GranD and GranD-f: captions whose phrases have masks, found by their places in the text."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from core.boxes import Box
from core.errors import BadSampleError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.formats.flickr30k_entities import GROUNDED_QUESTION
from model.training.data.importers.regions import MASKS, grounded, picture_of
from model.training.data.importers.run_lengths import mask_box, mask_size
from model.training.data.importers.turns import image, list_of_turns, text_of, user

UNPLACED = "phrases without a place in the text are left without boxes"
LONG_QUESTION = "Describe the image in detail, with the boxes of what you name."

Phrases = list[tuple[int, int, list[Box]]]


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record of each caption of an image."""
    entry = row.entry
    by_id: dict[Any, Any] = {}
    if "groundings" in entry:  # GranD-f
        groundings = Row(entry["groundings"]).entry
        masks = [mask for one in groundings.values() for mask in Row(one).entry.get("rle_masks") or []]
        captions, name = [(entry, GROUNDED_QUESTION)], entry.get("file_name")
    else:
        listed = [*list_of_turns(entry.get("objects")), *list_of_turns(entry.get("floating_objects") or [])]
        by_id = {_id(thing.get("id")): thing.get("segmentation") for thing in listed}
        masks = list(by_id.values())
        captions = [(said, GROUNDED_QUESTION) for said in list_of_turns(entry.get("short_captions") or [])]
        captions += [(entry["dense_caption"], LONG_QUESTION)] if entry.get("dense_caption") else []
        name = row.key
    if not masks or not captions:
        raise BadSampleError("no captions or no masks: nothing to say where")
    width, height = mask_size(masks[0])
    picture = picture_of(image(name), {"width": width, "height": height}, options)

    def draft(captioned: tuple[Any, str]) -> Draft:
        said, question = Row(captioned[0]).entry, captioned[1]
        named = _of_groundings(said["groundings"]) if "groundings" in entry else _of_details(said, by_id)
        caption = text_of(said, "caption")
        phrases = _phrases(caption, named)
        answer = grounded(picture, caption, phrases, "pixel_xyxy")
        notes = [MASKS] if len(phrases) == len(named) else [MASKS, UNPLACED]
        asked = user(picture.medium, f"\n{question}")
        return Draft([asked, answer], [picture.medium], original_id=name, task="grounded_caption", notes=notes)

    yield from drafts_of(captions, draft)


Named = list[tuple[str, Any, list[Any]]]
"""Phrases, their places in the text, their masks."""


def _of_groundings(groundings: Mapping[str, Any]) -> Named:
    return [(phrase, one.get("token_positives"), one.get("rle_masks") or []) for phrase, one in groundings.items()]


def _of_details(said: Mapping[str, Any], by_id: Mapping[Any, Any]) -> Named:
    found = []
    for detail in list_of_turns(said.get("details") or []):
        ids = detail["ids"] if isinstance(detail.get("ids"), list) else [detail.get("id")]
        masks = [by_id.get(_id(key)) for key in ids]
        found.append((text_of(detail, "phrase"), detail.get("tokens_positive"), masks))
    return found


def _id(key: object) -> object:
    if not isinstance(key, int | str | None):
        raise BadSampleError(f"no id of an object: {reprlib.repr(key)}")
    return key


def _phrases(caption: str, named: Named) -> Phrases:
    """Return begin and end of each phrase that has a place, and the boxes of its masks."""
    phrases = []
    for phrase, place, masks in named:
        if not place:
            continue
        if not isinstance(place, list) or [type(edge) for edge in place] != [int, int]:
            raise BadSampleError(f"no begin and end of a phrase: {reprlib.repr(place)} of {phrase!r}")
        begin, end = place
        if caption[begin:end].strip().casefold() != phrase.strip().casefold():
            raise BadSampleError(f"offsets do not match the phrase: {phrase!r} is not at {begin}-{end}")
        if not masks:
            raise BadSampleError(f"a phrase without a mask: {phrase!r}")
        phrases.append((begin, end, [mask_box(mask) for mask in masks]))
    return phrases


def _fits(entry: Mapping[str, Any]) -> bool:
    return {"caption", "groundings"} <= entry.keys() or {"objects", "short_captions"} <= entry.keys()


FORMAT = Format(
    name="grand",
    about="GranD and GranD-f: captions whose phrases have masks",
    read=read,
    fits=_fits,
    profiles=(Profile("grand"), Profile("grand-f")),
)
