"""An image whose header is sound and whose pixels cannot be decoded is neither sent to a server nor published."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from core.image_header import BadImageError
from core.images import portable
from manifests import open_run
from manifests.contents import CONTENTS, content_rows, contents_table
from manifests.part_files import writer_of
from pipeline.execution.stage_job import DECODED
from tests.chat_server import chat_server

Vl3syn = Callable[..., CompletedProcess[str]]


PIXELS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def encoded(format_: str, **how: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, format_, **how)
    return data.getvalue()


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def noise_behind(data: bytes, start: int) -> bytes:
    return data[:start] + random.Random(1).randbytes(len(data) - start)


def zeros_behind(data: bytes, start: int) -> bytes:
    return data[:start] + bytes(len(data) - start)


def far_strips(data: bytes) -> bytes:
    """A TIFF whose strips are said to lie behind the end of the file."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    fields = [at + 2 + 12 * number for number in range(count)]
    (strips,) = (field for field in fields if struct.unpack_from("<H", data, field)[0] == 273)
    changed = bytearray(data)
    struct.pack_into("<I", changed, strips + 8, len(data) + 1000)
    return bytes(changed)


BROKEN = {
    "cut.jpg": cut(encoded("JPEG")),
    "cut progressive.jpg": cut(encoded("JPEG", progressive=True)),
    "noise.jpg": noise_behind(encoded("JPEG"), 700),
    "zeros progressive.jpg": zeros_behind(encoded("JPEG", progressive=True), 3000),
    "cut.png": cut(encoded("PNG")),
    "noise.png": noise_behind(encoded("PNG"), 700),
    "zeros.png": zeros_behind(encoded("PNG"), 3000),
    "cut.webp": cut(encoded("WEBP")),
    "cut lossless.webp": cut(encoded("WEBP", lossless=True)),
    "cut.gif": cut(encoded("GIF")),
    "cut.avif": encoded("AVIF")[:-200],
    "strips.tif": far_strips(encoded("TIFF")),
    "cut.bmp": cut(encoded("BMP")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_portable_image_of_a_broken_file_is_an_error(name: str) -> None:
    with pytest.raises(BadImageError, match=r"^undecodable: "):
        portable(BROKEN[name], 2048)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_portable_image_of_a_sound_file_is_its_bytes(format_: str) -> None:
    assert portable(encoded(format_), 2048) == encoded(format_)


def recipe(folder: Path, url: str, *stages: str) -> Path:
    caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": url}}
    settings = {
        "pool": {"images": str(folder / "pool")},
        "stages": [{"stage": "aspect_ratio"}, *({"stage": name} for name in stages), caption],
        "publish": {},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.usefixtures("here")
def test_broken_images_are_neither_captioned_nor_published(tmp_path: Path, vl3syn: Vl3syn) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for name, data in BROKEN.items():
        (pool / name).write_bytes(data)
    for number in range(3):
        (pool / f"sound{number}.png").write_bytes(encoded("PNG", compress_level=number + 1))
    log = tmp_path / "log"
    with chat_server(log=log) as server:
        done = vl3syn("run", recipe(tmp_path, server.url), "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert log.read_text().count("asked") == 3
    assert json.loads(done.stdout)["published"]["rows"] == 3
    rows = open_run(tmp_path / "run").manifest().select("key", "status", "drop_reason").collect()
    reasons = {key: reason for key, status, reason in rows.iter_rows() if status == "error"}
    assert reasons.keys() == BROKEN.keys()
    assert all("undecodable: " in reason for reason in reasons.values())


@pytest.mark.usefixtures("here")
def test_undecodable_image_with_a_caption_is_not_published(tmp_path: Path, vl3syn: Vl3syn) -> None:
    """As in a run by an earlier version, which sent images to a server undecoded and stored no digests."""
    pool, out = tmp_path / "pool", tmp_path / "out"
    pool.mkdir()
    sound = {f"{number}.png": encoded("PNG") for number in range(4)}
    for name, data in sound.items():
        (pool / name).write_bytes(data)
    with chat_server() as server:
        done = vl3syn("run", recipe(tmp_path, server.url), "--run", tmp_path / "run")
        assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "run/stages" / CONTENTS)
    for name in ("1.png", "3.png"):
        (pool / name).write_bytes(noise_behind(sound[name], 700))
    again = vl3syn("publish", "--run", tmp_path / "run", "--out", out, "--json")
    assert again.returncode == 0, again.stderr
    assert pl.read_parquet(out / "data/*.parquet")["source_key"].sort().to_list() == ["0.png", "2.png"]
    lists = [json.loads(file.read_text()) for file in (out / ".publication").glob("left-out-*.json")]
    assert [sorted(reason.partition(":")[0] for reason in reasons.values()) for reasons in lists] == [
        ["undecodable", "undecodable"]
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("earlier", [False, True])
def test_only_captions_of_an_earlier_version_are_decoded_again(tmp_path: Path, vl3syn: Vl3syn, earlier: bool) -> None:
    """What the captions have decoded is not decoded again. Earlier versions did not decode, nor say that they did.

    The digest that is stored of 1.png is that of bytes without pixels: only a decoder finds out.
    """
    pool, run, out = tmp_path / "pool", tmp_path / "run", tmp_path / "out"
    pool.mkdir()
    for number in range(3):
        (pool / f"{number}.png").write_bytes(encoded("PNG", compress_level=number + 1))
    with chat_server() as server:
        done = vl3syn("run", recipe(tmp_path, server.url), "--run", run)
        assert done.returncode == 0, done.stderr
    broken = noise_behind((pool / "1.png").read_bytes(), 700)
    (pool / "1.png").write_bytes(broken)
    opened = open_run(run)
    ids = dict(opened.index.scan().select("key", "id").collect().iter_rows())
    contents = contents_table(opened.folder)
    digest = hashlib.sha256(broken).digest()
    contents.append(content_rows([ids["1.png"]], [(len(broken), digest)]), contents.next_writer(), {})
    if earlier:
        table = opened.stages[-1].table
        for part, provenance in table.provenances().items():
            del provenance[DECODED]
            table.append(table.read(part, table.schema.names), writer_of(part), provenance)
    again = vl3syn("publish", "--run", run, "--out", out, "--json")
    assert again.returncode == 0, again.stderr
    published = pl.read_parquet(out / "data/*.parquet")["source_key"].sort().to_list()
    assert published == (["0.png", "2.png"] if earlier else ["0.png", "1.png", "2.png"])
