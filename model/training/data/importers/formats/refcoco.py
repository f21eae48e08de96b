"""RefCOCO, RefCOCO+, RefCOCOg as JSON: referring expressions, whose boxes are in COCO's instances."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from core.errors import BadSampleError, UserError
from model.training.data.importers.format import Draft, Format, Options, Row, drafts_of
from model.training.data.importers.joined_files import Joined
from model.training.data.importers.readers import Notes, read_file
from model.training.data.importers.regions import box_of, choice_of, located, picture_of
from model.training.data.importers.turns import assistant, image, list_of_turns, text_of, user

_PICKLE = (
    "a pickle can run code and is not read: load it where you trust it, and write JSON: "
    "`json.dump(pickle.load(open('refs(unc).p', 'rb')), open('refs(unc).json', 'w'))`"
)


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the references of `refs*.json`, each with its annotation and image of `instances.json`."""
    if source.suffix in (".p", ".pkl", ".pickle"):
        raise UserError(f"{source}: {_PICKLE}")
    folder = source if source.is_dir() else source.parent
    listed = [source] if source.is_file() else sorted(source.glob("refs*.json"))
    if not listed:
        advice = f": {_PICKLE}" if any(source.glob("*.p")) else ": give the folder of refs*.json and instances.json"
        raise UserError(f"{source}: no refs*.json in it{advice}")
    if len(listed) > 1:  # of one set by several authors: a reference is train in one of them, and val in another
        names = ", ".join(file.name for file in listed)
        raise UserError(f"{source}: {names} are splits of the same references: give one of these files")
    instances = Path(options.get("instances") or folder / "instances.json")
    if not instances.is_file():
        raise UserError(f"{instances}: no such file: it has the boxes; give --set instances=FILE")
    with Joined(instances) as joined:
        for row in read_file(listed[0], listed[0].name, (), Notes()):
            if isinstance(row.value, dict):
                found = joined.annotation(row.value.get("ann_id"))
                shown = joined.image(row.value.get("image_id"))
                row = Row({**row.value, "annotation": found, "image": shown}, row.file, row.line, row.key)
            yield row


def read(row: Row, options: Options) -> Iterator[Draft | BadSampleError]:
    """Draft a record of each sentence: it is asked where that is, or the box is described."""
    entry = row.entry
    if entry.get("annotation") is None or entry.get("image") is None:
        raise BadSampleError(f"no box of a reference: ann_id {entry.get('ann_id')}, image_id {entry.get('image_id')}")
    shown, note = Row(entry["image"]).entry, Row(entry["annotation"]).entry
    if note.get("image_id") != shown.get("id"):
        raise BadSampleError(f"box of another image: ann_id {entry.get('ann_id')} is in {note.get('image_id')}")
    picture = picture_of(image(shown.get("file_name")), shown, options)
    box = box_of(note.get("bbox"))
    place = picture.text(box, "pixel_xywh")
    grounding = choice_of(options, "make", "grounding", "region") == "grounding"

    def draft(sentence: object) -> Draft:
        said = text_of(Row(sentence).entry, "sent").strip()
        if not said:
            raise BadSampleError("a sentence without words: its `sent` is empty")
        regions = (picture.region(box, "pixel_xywh", label=said),)
        answer = located(picture, [(said, [box])], "pixel_xywh") if grounding else assistant(said, regions=regions)
        asked = f"\nWhere is this: {said}?" if grounding else f"\nDescribe {place} so that it cannot be confused."
        return Draft(
            [user(picture.medium, asked), answer],
            [picture.medium],
            original_id=entry.get("ref_id"),
            split=str(entry.get("split") or ""),
            task="grounding" if grounding else "region_caption",
        )

    yield from drafts_of(list_of_turns(entry.get("sentences")), draft)


def _recognises(source: Path) -> bool:
    """Return whether it is a file or folder of references, pickles too, with the boxes beside."""
    folder = source if source.is_dir() else source.parent
    names = [file.name for file in folder.glob("refs*")] if source.is_dir() else [source.name]
    return (folder / "instances.json").is_file() and any(re.fullmatch(r"refs.*\.(json|p)", name) for name in names)


FORMAT = Format(
    name="refcoco",
    about="RefCOCO, RefCOCO+ and RefCOCOg as JSON, beside COCO's instances.json",
    read=read,
    fits=lambda entry: False,
    rows=rows,
    recognises=_recognises,
    options={
        "instances": "COCO's JSON with the boxes; default: instances.json beside",
        "make": "grounding (default): where is it; region: describe the box",
    },
)
