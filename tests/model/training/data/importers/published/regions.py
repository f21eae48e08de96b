"""Published boxes, documents and charts: a few invented rows of each form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.model.training import training_data
from tests.model.training.data.importers.formats import (
    test_blip3_ocr,
    test_coco,
    test_documents,
    test_docvqa,
    test_flickr30k_entities,
    test_grand,
    test_mdvp,
    test_osprey,
    test_refcoco,
    test_sa_1b,
    test_visual_genome,
)
from tests.model.training.data.importers.published.layouts import (
    Published,
    Write,
    array,
    keyed,
    keys,
    lines,
    parquet_with_json,
    tar,
)

WIDE = (400, 200)
CUP = {"bbox": [40, 20, 100, 60.5], "category_id": 47, "iscrowd": 0}
SHOWN = {"width": 400, "height": 200, "file_name": "9.jpg"}
OCR = test_blip3_ocr.ROW | {"captions": test_blip3_ocr.CAPTIONS}
CUPS = (SHOWN, [CUP, CUP | {"bbox": [200, 100, 200, 100]}])


def coco(name: str) -> Write:
    """COCO's file. A row is an image, and annotations that lack its id."""

    def write(folder: Path, rows: Sequence[Any]) -> Path:
        images = [{"id": number, **image} for number, (image, _) in enumerate(rows)]
        notes = [{"image_id": number, **note} for number, (_, listed) in enumerate(rows) for note in listed]
        whole = {"annotations": notes, "images": images, "categories": test_coco.NAMES}
        (folder / name).write_text(json.dumps(whole))
        return folder / name

    return write


def textocr(folder: Path, rows: Sequence[Any]) -> Path:
    """TextOCR's file: COCO's as objects of id → value."""
    images = {f"a{number}": {"id": f"a{number}", **image} for number, (image, _) in enumerate(rows)}
    notes = {
        f"a{number}_{place}": {"image_id": f"a{number}", **note}
        for number, (_, listed) in enumerate(rows)
        for place, note in enumerate(listed)
    }
    (folder / "TextOCR_0.1_train.json").write_text(json.dumps({"imgs": images, "anns": notes}))
    return folder / "TextOCR_0.1_train.json"


def refcoco(folder: Path, rows: Sequence[Any]) -> Path:
    """RefCOCO's folder. A row is a reference, its annotation and its image."""
    (folder / "refs(unc).json").write_text(
        json.dumps([{"ann_id": n, "image_id": n, **row[0]} for n, row in enumerate(rows)])
    )
    notes = [{"id": n, "image_id": n, **row[1]} for n, row in enumerate(rows)]
    images = [{"id": n, **row[2]} for n, row in enumerate(rows)]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return folder


def entities(folder: Path, rows: Sequence[Any]) -> Path:
    """Flickr30k Entities' folder. A row is the sentences and the XML of an image."""
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir()
    for key, row in zip(keys("1000", rows), rows, strict=True):
        (folder / "Sentences" / f"{key}.txt").write_text(row["sentences"])
        (folder / "Annotations" / f"{key}.xml").write_text(row["xml"])
    return folder


def charts(folder: Path, rows: Sequence[Any]) -> Path:
    """Chart-to-Text's folders. A row has the texts of a chart."""
    for name, ending in (("captions", "txt"), ("titles", "txt"), ("data", "csv")):
        (folder / "pew_dataset/dataset" / name).mkdir(parents=True)
        for number, row in enumerate(rows, 1):
            (folder / "pew_dataset/dataset" / name / f"{number}.{ending}").write_text(row[name])
    return folder


PUBLISHED: Mapping[str, Published] = {
    "coco": Published([CUPS], coco("instances_train2017.json"), 1, images={"9.jpg": WIDE}),
    "objects365": Published([CUPS], coco("zhiyuan_objv2_train.json"), 1, images={"9.jpg": WIDE}),
    "textocr": Published(
        [(SHOWN | {"set": "train"}, [{"utf8_string": "STOP", "bbox": [40, 20, 100, 60.0]}])],
        textocr,
        1,
        images={"9.jpg": WIDE},
    ),
    "refcoco": Published(
        [({"ref_id": 5, "split": "val", "sentences": test_refcoco.SAID}, {"bbox": [40, 20, 100, 60]}, SHOWN)],
        refcoco,
        2,
        images={"9.jpg": WIDE},
    ),
    "visual-genome": Published(
        [{"id": 7, "regions": [test_visual_genome.REGION]}],
        lines(),
        1,
        images={"VG_100K_2/7.jpg": WIDE},
        options={"images": "{folder}/image_data.json"},
        tables={
            "image_data.json": json.dumps(
                [{"image_id": 7, "width": 400, "height": 200, "url": test_visual_genome.ADDRESS}]
            )
        },
    ),
    "sa-1b": Published(
        [{"image": test_sa_1b.SHOWN, "annotations": test_sa_1b.MASKS}], tar("jpg", training_data.picture(0), "sa_1"), 1
    ),
    "flickr30k-entities": Published(
        [{"sentences": test_flickr30k_entities.SENTENCES, "xml": test_flickr30k_entities.XML}],
        entities,
        2,
        images={"1000.jpg": WIDE},
    ),
    "grand": Published([test_grand.OBJECTS], keyed("sa_1.jpg"), 2, images={"sa_1.jpg": (20, 10)}),
    "osprey": Published([test_osprey.CHAT], array(), 1, images={test_osprey.ENTRY["file_name"]: WIDE}),
    "mdvp": Published(
        [test_mdvp.BOXES],
        array(),
        1,
        images={"vg/a.png": (56, 56)},
        options={"prefix": "/data/", "pictures": "{folder}/media"},
    ),
    "pdfa": Published(
        [{"pages": [test_documents.PAGE] * 2}], tar("pdf", b"%PDF"), 2, {"0/1.png": WIDE, "0/2.png": WIDE}
    ),
    "idl": Published(
        [{"pages": [test_documents.FLAT_PAGE]}],
        tar("tif", test_documents.tiff()),
        1,
        options={"pages": "rendered", "make": "boxes"},
    ),
    "blip3-ocr": Published([OCR], parquet_with_json("captions"), 1, images={"ab12.jpg": WIDE}),
    "docvqa": Published([test_docvqa.DOC], array("data"), 1, images={test_docvqa.DOC["image"]: WIDE}),
    "infovqa": Published([test_docvqa.INFO], array("data"), 1, images={"20.jpeg": WIDE}),
    "chart-to-text": Published(
        [{"captions": "Few agree.", "titles": "Views of kettles", "data": "Year,Share\n2019,4\n"}],
        charts,
        1,
        images={"pew_dataset/dataset/imgs/1.png": WIDE},
    ),
}
