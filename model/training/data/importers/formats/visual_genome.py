"""Visual Genome: `region_descriptions.json` and `objects.json`. Sizes are in `image_data.json`, or in the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.boxes import Box
from core.errors import BadSampleError
from model.training.data.importers.format import Draft, Format, Options, Profile, Row, drafts_of
from model.training.data.importers.readers import read_rows
from model.training.data.importers.regions import PICTURES, box_of, choice_of, located, picture_of
from model.training.data.importers.turns import assistant, image, list_of_turns, text_of, user


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record for each region of an image; of objects, one record of all of them."""
    entry = row.entry
    key = entry.get("image_id", entry.get("id"))
    known = {**_images(options.get("images", "")).get(str(key), {}), **entry}
    url = str(known.get("url") or known.get("image_url") or "")
    path = "/".join(url.split("/")[-2:]) if url else f"{key}.jpg"  # …/VG_100K_2/1.jpg
    picture = picture_of(image(path), known, options)
    grounding = choice_of(options, "make", "region", "grounding") == "grounding"

    def draft(question: str, answer: Any, task: str) -> Draft:
        said = [user(picture.medium, f"\n{question}"), answer]
        return Draft(said, [picture.medium], original_id=key, url=url, task=task)

    def of_region(region: Mapping[str, Any]) -> Draft:
        box, phrase = _box(region, "width", "height"), text_of(region, "phrase").strip()
        place = picture.text(box, "pixel_xywh")
        if grounding:
            return draft(f"Where is this: {phrase}?", located(picture, [(phrase, [box])], "pixel_xywh"), "grounding")
        answer = assistant(phrase, regions=(picture.region(box, "pixel_xywh", label=phrase),))
        return draft(f"Describe {place}.", answer, "region_caption")

    if "regions" in entry:
        yield from drafts_of(list_of_turns(entry["regions"]), of_region)
        return
    things: dict[str, list[Box]] = {}
    for thing in list_of_turns(entry.get("objects")):
        names = thing.get("names")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise BadSampleError(f"an object without a name: object {thing.get('object_id')}")
        things.setdefault(names[0], []).append(_box(thing, "w", "h"))
    if not things:
        raise BadSampleError("no objects: nothing to locate")
    question = f"Find all objects of these kinds: {', '.join(things)}."
    yield draft(question, located(picture, list(things.items()), "pixel_xywh"), "grounding")


def _box(entry: Mapping[str, Any], width: str, height: str) -> Box:
    return box_of([entry.get(key) for key in ("x", "y", width, height)])


@lru_cache(2)
def _images(file: str) -> Mapping[str, Mapping[str, Any]]:
    """Return width, height and url by image id."""
    if not file:
        return {}
    rows = (row.value for row in read_rows(Path(file)) if isinstance(row.value, Mapping))
    wanted = ("width", "height", "url")
    known = {str(value.get("image_id")): {key: value.get(key) for key in wanted} for value in rows}
    if not known:
        raise BadSampleError(f"no image in it: --set images={file}; give Visual Genome's image_data.json")
    return known


FORMAT = Format(
    name="visual-genome",
    about="Visual Genome's region descriptions and objects; give --set images=image_data.json",
    read=read,
    fits=lambda entry: isinstance(entry.get("regions"), list) or {"objects", "image_id"} <= entry.keys(),
    profiles=(Profile("visual-genome"),),
    options={
        "images": "image_data.json: sizes and addresses of the images",
        "make": "region (default): describe a box; grounding: locate a phrase",
        **PICTURES,
    },
)
