"""SA-1B: masks without names and captions. The records locate everything; captions are for a captioner to write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from core.errors import BadSampleError
from core.records import Licence
from model.training.data.grounding import box_text
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.readers import files_of_kind
from model.training.data.importers.regions import MASKS, box_of, picture_of
from model.training.data.importers.turns import assistant, image, list_of_turns, user
from model.training.data.importers.whole_files import whole_rows

QUESTION = "Give the boxes of all objects and their parts."
SMALLER = "smaller boxes than the largest are left out"


def rows(source: Path, options: Options) -> Iterator[Row]:
    """Yield the samples of tars, or the JSON files of a folder."""
    yield from whole_rows(source)


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an image: the boxes of its masks."""
    entry = row.entry
    pixels = entry.get("jpg")
    if isinstance(pixels, bytes) and "json" not in entry:
        raise BadSampleError("an image without annotations: no .json beside it")
    entry = Row(entry.get("json", entry)).entry
    shown = Row(entry.get("image")).entry
    held = isinstance(pixels, bytes)
    picture = picture_of(image(shown.get("file_name"), root="records" if held else "media"), shown, options)
    masks = list_of_turns(entry.get("annotations"))
    boxes = [box_of(mask.get("bbox")) for mask in masks]
    most = int(options.get("largest") or len(boxes))
    chosen = sorted(sorted(range(len(boxes)), key=lambda n: -boxes[n][2] * boxes[n][3])[:most])
    if not chosen:
        raise BadSampleError("an image without masks: nothing to locate")
    boxes = [boxes[number] for number in chosen]
    answer = box_text([picture.pixels(box, "pixel_xywh") for box in boxes], picture.width, picture.height)
    yield Draft(
        [
            user(picture.medium, f"\n{QUESTION}"),
            assistant(answer, regions=tuple(picture.region(box, "pixel_xywh") for box in boxes)),
        ],
        [picture.medium],
        original_id=shown.get("image_id"),
        task="detection",
        notes=[MASKS, *([SMALLER] if len(boxes) < len(masks) else [])],
        embedded={"i0": pixels} if isinstance(pixels, bytes) else {},
    )


def _recognises(source: Path) -> bool:
    """Return whether the first sample has masks as SA-1B's generator of masks writes them."""
    files = [*files_of_kind(source, ".json"), *files_of_kind(source, ".tar")]
    row = next(whole_rows(files[0]), None) if files else None
    value = row.value if row and isinstance(row.value, Mapping) else {}
    entry = value.get("json", value)
    masks = entry.get("annotations") if isinstance(entry, Mapping) and isinstance(entry.get("image"), Mapping) else None
    first = masks[0] if isinstance(masks, list) and masks and isinstance(masks[0], Mapping) else {}
    return {"bbox", "predicted_iou", "crop_box"} <= first.keys()


FORMAT = Format(
    name="sa-1b",
    about="SA-1B's tars or JSON files: boxes of all masks, without names and captions",
    read=read,
    fits=lambda entry: False,
    rows=rows,
    recognises=_recognises,
    profiles=(Profile("sa-1b", Licence(name="research licence", non_commercial=True)),),
    options={"largest": "how many of an image's boxes, the largest; default: all"},
)
