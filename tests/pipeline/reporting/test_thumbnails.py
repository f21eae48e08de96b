"""Thumbnails: small, upright, bounded in number of bytes; what cannot be shown has a reason."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import polars as pl
from PIL import Image

from manifests import Run
from pipeline.reporting.thumbnails import Thumbnail, thumbnails
from tests.stored_facts import ids_of, store_run


def stored(tmp_path: Path, files: dict[str, bytes]) -> Run:
    (tmp_path / "pool").mkdir()
    for name, data in files.items():
        (tmp_path / "pool" / name).write_bytes(data)
    return store_run(tmp_path / "run", {"name": "t", "pool": {"images": str(tmp_path / "pool")}, "stages": []}, {})


def shown(run: Run, side: int = 64, budget: int = 1 << 20) -> dict[str, Thumbnail]:
    keys = {id_: key for key, id_ in ids_of(run).items()}
    pictures = thumbnails(run, pl.DataFrame({"id": list(keys)}), side, budget)
    return {keys[id_]: picture for id_, picture in pictures.items()}


def opened(thumbnail: Thumbnail) -> Image.Image:
    kind, _, text = thumbnail.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def encoded(image: Image.Image, format_: str = "JPEG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format_, **options)
    return data.getvalue()


def test_thumbnail_is_small_upright_and_without_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90° to the right
    picture = Image.new("RGB", (400, 200), "red")
    picture.paste("blue", (0, 0, 200, 200))  # on top, when it is upright
    data = encoded(picture, exif=exif, comment=b"x" * 5000, icc_profile=b"y" * 5000)
    run = stored(tmp_path, {"a.jpg": data, "small.png": encoded(Image.new("RGB", (10, 5)), "PNG")})
    pictures = shown(run)
    small = opened(pictures["a.jpg"])
    assert (small.size, pictures["a.jpg"].width, pictures["a.jpg"].height) == ((32, 64), 32, 64)
    top, bottom = (small.convert("RGB").getpixel((16, y)) for y in (8, 56))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[2] > 200 > bottom[2]
    assert bottom[0] > 200 > top[0]
    assert len(pictures["a.jpg"].uri) < 4000
    assert opened(pictures["small.png"]).size == (10, 5), "it is not enlarged"


def test_what_cannot_be_shown_has_a_reason(tmp_path: Path) -> None:
    whole = encoded(Image.effect_noise((200, 200), 50))
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    run = stored(
        tmp_path, {"cut.jpg": whole[: len(whole) // 2], "bomb.png": bomb, "text.jpg": b"hello", "good.jpg": whole}
    )
    pictures = shown(run)
    assert {key for key, picture in pictures.items() if picture.uri} == {"good.jpg"}
    assert pictures["bomb.png"].reason.startswith("decompression bomb")
    assert pictures["text.jpg"].reason.startswith("not an image")
    assert pictures["cut.jpg"].reason


def test_bytes_of_a_page_are_bounded(tmp_path: Path) -> None:
    noise = encoded(Image.effect_noise((64, 64), 80))
    run = stored(tmp_path, {f"{number}.jpg": noise for number in range(6)})
    pictures = shown(run)
    size = len(base64.b64decode(pictures["0.jpg"].uri.partition(",")[2]))
    limited = shown(run, budget=3 * size + 1)
    assert sum(bool(picture.uri) for picture in limited.values()) == 3
    assert {picture.reason for picture in limited.values() if not picture.uri} == {"left out: the page is full"}
