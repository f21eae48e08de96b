"""A pool of pieces of photographs, some of them with a planted defect, and the list of what was planted where."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from duplicates import in_series, one_view
from ocr import WORDS
from PIL import Image, ImageDraw, ImageFont
from planted_copies import FURTHER, PLANTED, as_jpeg
from quality import blurred

from core.images import decode
from filters.quality import contrast, grey

SOUND = "sound"
COPIES = {kind: change for kind, change in {**PLANTED, **FURTHER}.items() if kind != "cropped by 5 %"}
"""Copies of a sound piece, by kind: `exact` is the same file."""

BOILERPLATE = (
    "image", "photo", "picture", "IMG_1234", "DSC00042.JPG", "click to enlarge", "thumbnail", "untitled", "logo", "…"
)  # fmt: skip
"""Alt texts that say nothing of an image."""

TEXT, DRAWN = "rendered text", "drawn shapes"
WRONG_TEXT, EMPTY_TEXT = "mismatched caption", "boilerplate caption"

_CELL = (280, 210)  # pixels, the smallest piece
_MOST = 4  # pieces of a photograph in a row and in a column
_CONTRAST = 0.05  # RMS, of 0.5 at most
_QUALITY = 92  # of the JPEGs of the pool
_LARGE = 230  # pixels, shorter side: 90 % of it pass `min_side: 200`
_PAGES = ("page.png", "text.png")  # scans of text


@dataclass(frozen=True)
class Piece:
    """A region of a photograph.

    Attributes:
        photograph: Name of the file.
        image: RGB.
        text: Alt text, or None.
    """

    photograph: str
    image: Image.Image
    text: str | None


@dataclass(frozen=True)
class Entry:
    """What one row of the pool is.

    Attributes:
        id: Of the row.
        kind: `sound`, or the planted defect.
        photograph: The file that the piece is of; empty for what was drawn.
        copy_of: The id of the row that this one is a copy of, or None.
        text: Alt text, or None.
    """

    id: int
    kind: str
    photograph: str
    copy_of: int | None
    text: str | None


def distinct(files: Sequence[Path]) -> list[Path]:
    """Return the photographs without scans of text, with one file of each view and without stills of sequences."""
    chosen: list[Path] = []
    for file in files:
        if file.name in _PAGES or in_series(file.name):
            continue
        if not any(one_view(file.name, other.name) for other in chosen):
            chosen.append(file)
    return chosen


def pieces(files: Sequence[Path], texts: Mapping[str, str]) -> Iterator[Piece]:
    """Yield the pieces of photographs: up to 4 × 4 of each, of at least 280 × 210 pixels, side by side.

    Pieces without contrast are left out: a piece of blue sky is no photograph.

    Args:
        files: Photographs.
        texts: Alt text by the name of a photograph; pieces of others have none.
    """
    for file in files:
        image = decode(file.read_bytes())
        columns, rows = (min(_MOST, side // least) for side, least in zip(image.size, _CELL, strict=True))
        for number in range(columns * rows):
            row, column = divmod(number, columns)
            left, right = (image.width * (column + more) // columns for more in (0, 1))
            top, bottom = (image.height * (row + more) // rows for more in (0, 1))
            piece = image.crop((left, top, right, bottom))
            if contrast(grey(piece)) >= _CONTRAST:
                yield Piece(file.name, piece, texts.get(file.name))


def blur(image: Image.Image, rng: random.Random) -> Image.Image:
    return blurred(image)


def over_compress(image: Image.Image, rng: random.Random) -> Image.Image:
    return decode(as_jpeg(image, 10))


def stretch(image: Image.Image, rng: random.Random) -> Image.Image:
    """A strip out of the middle, 2.6 to 5 times as wide as high, scaled so that its height passes `min_side: 200`."""
    height = round(image.width / rng.uniform(2.6, 5))
    top = (image.height - height) // 2
    strip = image.crop((0, top, image.width, top + height))
    return strip.resize((round(210 * strip.width / strip.height), 210), Image.Resampling.BICUBIC)


def shrink(image: Image.Image, rng: random.Random) -> Image.Image:
    """Scaled to a shorter side of 40 to 150 pixels."""
    scale = rng.randint(40, 150) / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


CHANGES = {"blurred": blur, "JPEG of quality 10": over_compress, "extreme ratio": stretch, "tiny": shrink}
"""Defects that are made of a piece's pixels, by kind."""


def page(rng: random.Random) -> Image.Image:
    """Some lines of common words on light ground, 640 × 480."""
    image = Image.new("RGB", (640, 480), rng.choice(("white", "#f4efe0", "#e6eef8")))
    size = rng.randint(22, 34)
    for line in range(rng.randint(4, 440 // (size + 12))):
        words = " ".join(rng.choices(WORDS, k=4))
        ImageDraw.Draw(image).text((24, 20 + line * (size + 12)), words, "#202020", ImageFont.load_default(size))
    return image


def make(folder: Path, stock: Sequence[Piece], sound: int, each: int, drawn: Sequence[bytes], seed: int) -> list[Entry]:
    """Write `pool.parquet` and `planted.json` into a folder; the same for the same arguments.

    Args:
        folder: Is made.
        stock: Pieces to choose from. Defects of pixels take pieces without a text first, defects of texts those with.
        sound: How many pieces stay as they are.
        each: How many rows of each kind of defect.
        drawn: JPEGs of drawn shapes, a kind of their own.
        seed: Of all choices.

    Returns:
        What each row is.

    Raises:
        ValueError: There are fewer pieces than needed.
    """
    rng = random.Random(seed)
    rows = [*_planted(stock, sound, each, rng), *((DRAWN, "", None, None, data) for data in drawn)]
    order = rng.sample(range(len(rows)), len(rows))  # a row's id says nothing of its kind
    ids = {number: position for position, number in enumerate(order)}
    entries, encoded = [], []
    for number in order:
        kind, photograph, copied, text, data = rows[number]
        entries.append(Entry(ids[number], kind, photograph, None if copied is None else ids[copied], text))
        encoded.append(data)
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "id": pa.array([entry.id for entry in entries], pa.int64()),
        "image": pa.array(encoded, pa.binary()),
        "alt_text": pa.array([entry.text for entry in entries], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "pool.parquet", row_group_size=100)
    (folder / "planted.json").write_text(json.dumps([asdict(entry) for entry in entries], indent=1) + "\n")
    return entries


Row = tuple[str, str, int | None, str | None, bytes]
"""Kind, photograph, number of the row that it is a copy of, alt text, JPEG."""


def _planted(stock: Sequence[Piece], sound: int, each: int, rng: random.Random) -> list[Row]:
    told, bare = ([piece for piece in stock if (piece.text is not None) is has] for has in (True, False))
    needed = sound + each * (len(CHANGES) + 2)
    if len(stock) < needed or len(told) < 2 * each or len(bare) < each * len(CHANGES) or sound < each * len(COPIES):
        raise ValueError(f"{len(stock)} pieces, {len(told)} of them with a text, are too few for {needed}")
    rng.shuffle(told)
    rng.shuffle(bare)
    rows: list[Row] = []
    for kind, change in CHANGES.items():
        for piece in (bare.pop() for _ in range(each)):
            rows.append((kind, piece.photograph, None, piece.text, as_jpeg(change(piece.image, rng), _QUALITY)))
    texts = sorted({piece.text for piece in told if piece.text})
    for piece in (told.pop() for _ in range(each)):
        wrong = rng.choice([text for text in texts if text != piece.text])
        rows.append((WRONG_TEXT, piece.photograph, None, wrong, as_jpeg(piece.image, _QUALITY)))
    for piece in (told.pop() for _ in range(each)):
        rows.append((EMPTY_TEXT, piece.photograph, None, rng.choice(BOILERPLATE), as_jpeg(piece.image, _QUALITY)))
    first = len(rows)
    for piece in [*told, *bare][:sound]:  # all pieces that have their own text
        rows.append((SOUND, piece.photograph, None, piece.text, as_jpeg(piece.image, _QUALITY)))
    originals = rng.sample(range(first, len(rows)), sound)
    # Large ones last: they are taken first, for the copies that are smaller; these should not be too small as well.
    originals.sort(key=lambda row: min(decode(rows[row][-1]).size) >= _LARGE)
    for kind, copied in sorted(COPIES.items(), key=lambda item: not item[0].startswith("scaled")):
        for original in (originals.pop() for _ in range(each)):
            _, photograph, _, text, data = rows[original]
            rows.append((kind, photograph, original, text, copied(data)))
    return rows + [(TEXT, "", None, None, as_jpeg(page(rng), _QUALITY)) for _ in range(each)]
