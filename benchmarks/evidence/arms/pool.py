"""A raw pool of scenes as the web would have it, with what is true of each image beside it; and clean scenes.

    POOL/images/000.parquet     id, image, alt_text: what curation sees
    POOL/truth.jsonl            id, defect, caption, incomplete, objects, original: what only the evaluation may read

A row has one defect at most. Objects follow Zipf's law. Most true alt texts are incomplete, no defect here.
Everything follows from the seed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from captioners.prompts import choose, read_prompts

from .cut_outs import Materials
from .scenes import (
    INCOMPLETE,
    SIDE,
    ZIPF,
    Scene,
    alt_text,
    caption,
    draw,
    frequencies,
    incomplete_captions,
    random_scene,
)

SHARES = {"wrong caption": 0.25, "boilerplate": 0.10, "near-duplicate": 0.15, "blurred": 0.06, "tiny": 0.06}
"""Share of the rows with each defect. The rest has none."""

CLEAN = ""
"""The defect of a row without one."""

BOILERPLATE = (
    "IMG_{n:04d}.JPG",
    "Click to enlarge",
    "Image {n} of 20",
    "Free shipping on orders over $50. Buy now!",
    "Photo credit: stock images, all rights reserved",
    "Loading... please wait",
)
COPIED = 1 / 200
"""Originals that near-duplicates are made of, as a share of the rows: so each is copied some thirty times."""

_ROWS = 2000  # of a Parquet file


@dataclass(frozen=True)
class Row:
    """An image of a raw pool and what is true of it.

    Attributes:
        image: A JPEG.
        alt_text: What the pool says of it.
        scene: What it shows.
        defect: A key of `SHARES`, or `CLEAN`.
        original: Number of the row that a near-duplicate was made of, else -1.
    """

    image: bytes
    alt_text: str
    scene: Scene
    defect: str = CLEAN
    original: int = -1


def raw_rows(
    count: int,
    seed: int,
    materials: Materials,
    shares: Mapping[str, float] = SHARES,
    incomplete: float = INCOMPLETE,
) -> list[Row]:
    """Return the rows of a raw pool, with exactly these shares of defects, in a random order of defects.

    `incomplete` is the probability that a true alt text says only a part, 0 to 1.
    """
    random = Random(f"raw {seed}")
    names = list(materials.objects)
    Random(f"ranks {seed}").shuffle(names)
    weights = frequencies(names, ZIPF)
    defects = _defects(count, shares, random)
    rows = []
    for defect in defects:
        scene = random_scene(names, weights, random)
        said = alt_text(scene, incomplete, random)
        rows.append(Row(_jpeg(draw(scene, random, materials), random), said, scene, defect))
    clean = [number for number, row in enumerate(rows) if row.defect == CLEAN]
    originals = clean[: max(1, round(COPIED * count))]
    return [_with_defect(row, rows, originals, random) for row in rows]


def _defects(count: int, shares: Mapping[str, float], random: Random) -> list[str]:
    defects = [defect for defect, share in shares.items() for _ in range(round(share * count))]
    defects += [CLEAN] * (count - len(defects))
    random.shuffle(defects)
    return defects


def _with_defect(row: Row, rows: Sequence[Row], originals: Sequence[int], random: Random) -> Row:
    match row.defect:
        case "wrong caption":
            true = {caption(row.scene), *incomplete_captions(row.scene)}
            others = iter(lambda: random.choice(rows).alt_text, None)
            return replace(row, alt_text=next(other for other in others if other not in true))
        case "boilerplate":
            return replace(row, alt_text=random.choice(BOILERPLATE).format(n=random.randint(1, 9999)))
        case "near-duplicate":
            number = random.choice(originals)
            original = rows[number]
            image = _jpeg(_copy(_opened(original.image), random), random)
            return replace(original, image=image, defect=row.defect, original=number)
        case "blurred":
            blurred = _opened(row.image).filter(ImageFilter.GaussianBlur(random.uniform(3, 5)))
            return replace(row, image=_jpeg(blurred, random))
        case "tiny":
            return replace(row, image=_jpeg(_shrunk(_opened(row.image), random), random))
    return row


def _copy(image: Image.Image, random: Random) -> Image.Image:
    """Scale down a little, crop a little, or leave as it is: a JPEG is encoded anew anyway."""
    kind = random.randrange(3)
    if kind == 0:
        return image.resize((round(0.92 * SIDE), round(0.92 * SIDE)))
    if kind == 1:
        return image.crop((2, 2, SIDE - 2, SIDE - 2))
    return image


def _shrunk(image: Image.Image, random: Random) -> Image.Image:
    """A thumbnail, or a strip such as a banner."""
    side = random.randint(28, 48)
    return image.resize((side, side) if random.random() < 0.5 else (SIDE, side - 14))


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _jpeg(image: Image.Image, random: Random) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=random.randint(75, 95))
    return data.getvalue()


def clean_scenes(count: int, purpose: str, seed: int, materials: Materials) -> Iterator[tuple[Scene, Image.Image]]:
    """Yield clean scenes in which all objects are equally frequent. `purpose` keeps them apart from other scenes."""
    random = Random(f"{purpose} {seed}")
    names = list(materials.objects)
    for _ in range(count):
        scene = random_scene(names, frequencies(names, 0), random)
        yield scene, draw(scene, random, materials)


def write_raw(rows: Sequence[Row], folder: Path) -> None:
    """Write a raw pool as Parquet files, and what is true of it beside them. A row's id is its number."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for first in range(0, len(rows), _ROWS):
        part = rows[first : first + _ROWS]
        table = pa.table(
            {
                "id": pa.array(range(first, first + len(part)), pa.int64()),
                "image": [{"bytes": row.image, "path": None} for row in part],
                "alt_text": [row.alt_text for row in part],
            }
        )
        pq.write_table(table, folder / "images" / f"{first // _ROWS:03d}.parquet")
    with (folder / "truth.jsonl").open("w") as file:
        for number, row in enumerate(rows):
            true = {"caption": caption(row.scene), "incomplete": incomplete_captions(row.scene)}
            known = {"id": number, "defect": row.defect, **true, "objects": row.scene.objects, "original": row.original}
            file.write(json.dumps(known) + "\n")


def write_annotated(
    scenes: Iterator[tuple[Scene, Image.Image]], folder: Path, questions: Sequence[str] | None = None
) -> None:
    """Write clean scenes in VideoLLaMA3's form: FOLDER/annotations.jsonl, and the pictures beside it, as PNG.

    They are asked for by `questions`, or by the prompts that published short captions answer.
    """
    questions = questions or read_prompts("short")
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (scene, picture) in enumerate(scenes):
        path = f"pictures/{number:05d}.png"
        picture.save(folder / path, compress_level=1)
        lines.append(
            {"image": path, "conversations": conversation(f"<image>\n{choose(questions, number)}", caption(scene))}
        )
    write_lines(lines, folder)


def conversation(question: str, said: str) -> list[dict[str, str]]:
    """Return the turns of a sample: a question with the placeholder of its medium, and the caption."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": said}]


def write_lines(samples: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write FOLDER/annotations.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
