"""Images out of every kind of pool, in any order, and decoded: the same picture however it is stored."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.image_header import BadImageError
from core.images import decode
from pipeline.pools import Pool, pool_of
from pipeline.pools.images import IMAGE_ADDRESS, Failure
from pipeline.pools.reader import Images

MakeImages = Callable[..., Path]


def stored(pool: Pool) -> tuple[Images, pa.Table]:
    listing = pool.listing()
    assert pool.root() == listing.root
    rows = pool.index(listing.root, listing.shards)
    assert rows["error"].null_count == rows.num_rows
    return Images(pool, listing.root), rows


def read(images: Images, rows: pa.Table) -> tuple[list[bytes | Failure], int]:
    results: list[bytes | Failure] = [Failure("never read")] * rows.num_rows
    reads = 0
    for group in images.groups(rows.select(IMAGE_ADDRESS)):
        reads += 1
        for row, data in zip(group.rows, images.read(group), strict=True):
            results[row] = data
    return results, reads


@pytest.fixture
def pools(tmp_path: Path, make_images: MakeImages) -> dict[str, Pool]:
    """100 images as files, in two tars, in a Parquet file of several row groups, and as img2dataset's files."""
    folder = make_images(tmp_path / "files", 100)
    files = sorted(folder.iterdir())
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for file in files[number * 50 : number * 50 + 50]:
                archive.add(file, file.name)
    cells = [{"bytes": f.read_bytes(), "path": f.name} for f in files]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet", row_group_size=30)
    make_images(tmp_path / "i2d" / "00000", 100)
    for name in ("00000_stats.json", "00000.parquet"):
        (tmp_path / "i2d" / name).write_text("{}")
    sidecar = pa.table({"key": [f"{n:06d}" for n in range(100)], "status": ["success"] * 100})
    pq.write_table(sidecar, tmp_path / "i2d" / "00000.parquet")
    return {
        "images": pool_of(images=str(folder)),
        "tars": pool_of(tars=str(tmp_path / "*.tar")),
        "parquet": pool_of(parquet=str(tmp_path / "a.parquet")),
        "img2dataset": pool_of(img2dataset=str(tmp_path / "i2d")),
    }


@pytest.mark.parametrize(("kind", "most_reads"), [("images", 100), ("tars", 2), ("parquet", 4), ("img2dataset", 100)])
def test_every_pool_reads_the_stored_bytes(pools: dict[str, Pool], tmp_path: Path, kind: str, most_reads: int) -> None:
    files = {f.name: f.read_bytes() for f in (tmp_path / "files").iterdir()}
    images, rows = stored(pools[kind])
    for some in (rows, rows.take(list(range(0, 100, 7))), rows.take(list(range(99, -1, -1)))):
        result, reads = read(images, some)
        assert result == [files[key] for key in some["key"].to_pylist()]
        assert reads <= most_reads or some is not rows


@pytest.mark.parametrize(("kind", "name"), [("tars", "0.TAR"), ("parquet", "a.pq")])
def test_shard_with_another_ending_is_read_as_indexed(
    pools: dict[str, Pool], tmp_path: Path, kind: str, name: str
) -> None:
    files = {f.name: f.read_bytes() for f in (tmp_path / "files").iterdir()}
    (tmp_path / f"{name.split('.')[0]}.{'tar' if kind == 'tars' else 'parquet'}").rename(tmp_path / name)
    images, rows = stored(pool_of(**{kind: str(tmp_path / name)}))
    assert read(images, rows)[0] == [files[key] for key in rows["key"].to_pylist()]


def test_distant_members_are_read_separately(tmp_path: Path, make_images: MakeImages) -> None:
    files = sorted(make_images(tmp_path / "files", 2).iterdir())
    (tmp_path / "big.bin").write_bytes(b"\0" * (1 << 20))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file in (files[0], tmp_path / "big.bin", files[1]):
            archive.add(file, file.name)
    images, rows = stored(pool_of(tars=str(tmp_path / "a.tar")))
    assert read(images, rows) == ([f.read_bytes() for f in files], 2)


def test_vanished_or_truncated_shard_is_a_failure_of_its_rows(pools: dict[str, Pool], tmp_path: Path) -> None:
    images, rows = stored(pools["images"])
    (tmp_path / "files" / "000003.jpg").unlink()
    result, _ = read(images, rows)
    (lost,) = [f for f in result if isinstance(f, Failure)]
    assert lost.retry
    assert lost.error.startswith("unreadable: ")
    images, rows = stored(pools["tars"])
    whole = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(whole) // 2])
    result, _ = read(images, rows)
    lost_rows = [f for f in result if isinstance(f, Failure)]
    assert 10 < len(lost_rows) < 40
    assert {(f.error.split(":")[0], f.retry) for f in lost_rows} == {("cut off", True)}
    images, rows = stored(pools["parquet"])
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    result, _ = read(images, rows)
    assert all(isinstance(f, Failure) and f.error.startswith("unreadable: ") and f.retry for f in result)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format_, **options)
    return data.getvalue()


def noise(format_: str) -> bytes:
    return encoded(Image.effect_noise((200, 200), 90), format_)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_images_of_every_format_are_upright(format_: str, turn: int) -> None:
    """A picture whose top is red, stored turned: it is red at the top again."""
    if turn != 1 and format_ in ("BMP", "GIF"):
        pytest.skip("has no EXIF")
    upright = Image.new("RGB", (40, 60), "blue")
    upright.paste("red", (0, 0, 40, 20))
    undo = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {} if format_ in ("BMP", "GIF") else {"exif": exif}
    image = decode(encoded(upright if undo is None else upright.transpose(undo), format_, **options))
    assert (image.mode, image.size) == ("RGB", (40, 60))
    pixels = np.asarray(image).astype(int)
    assert pixels[10, 20, 0] - pixels[10, 20, 2] > 150
    assert pixels[50, 20, 2] - pixels[50, 20, 0] > 150


def test_transparency_is_put_on_white_and_16_bits_are_scaled() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert decode(encoded(palette, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 32_768, np.uint16))
    assert decode(encoded(deep, "PNG")).getpixel((0, 0)) == (128, 128, 128)
    cmyk = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert decode(encoded(cmyk, "JPEG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (bytes, "undecodable: "),
        (lambda: b"<html>", "undecodable: UnidentifiedImageError"),
        (lambda: noise("JPEG")[:-3000], "undecodable: OSError image file is truncated"),
        (lambda: noise("PNG")[:-3000], "undecodable: "),
        (lambda: encoded(Image.new("1", (20_000, 20_000)), "PNG"), "decompression bomb: 20000×20000"),
    ],
)
def test_bytes_without_an_image_are_one_error(made: Callable[[], bytes], error: str) -> None:
    with pytest.raises(BadImageError) as refused:
        decode(made())
    assert str(refused.value).startswith(error)
    assert "\n" not in str(refused.value)


def test_jpeg_is_decoded_no_smaller_than_requested() -> None:
    photo = encoded(Image.effect_noise((1600, 1200), 90), "JPEG")
    assert decode(photo, 600).size == (800, 600)
    assert decode(photo, 601).size == (1600, 1200)
    assert decode(photo, 10).size == (200, 150)
