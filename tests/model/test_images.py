from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.images import frames_tensor, image_size, normalise, patchify, read_image, resize, unpatchify


def _picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("height", "width", "merge"), [(100, 150, 1), (300, 200, 2), (57, 56, 1), (33, 400, 2)])
def test_patches_equal_transformers_bit_for_bit(height: int, width: int, merge: int) -> None:
    from transformers import VideoLlama3ImageProcessor

    f = 14 * merge
    size = {"shortest_edge": 16 * f * f, "longest_edge": 100 * f * f}
    theirs = VideoLlama3ImageProcessor(size=size, merge_size=merge)(_picture(height, width), return_tensors="pt")
    _, h, w = theirs["image_grid_thw"][0].tolist()
    ours = patchify(resize(read_image(_picture(height, width)), (h * 14, w * 14)), 14, merge)
    assert torch.equal(normalise(ours), theirs["pixel_values"])


@pytest.mark.parametrize("size", [(28, 42), (56, 98), (140, 196)])
def test_pixels_do_not_depend_on_the_memory_format(size: tuple[int, int]) -> None:
    image = read_image(_picture(57, 83))
    fast, slow = resize(image, size), resize(image.contiguous(), size)
    assert (fast.stride(1), slow.stride(1)) == (1, size[0] * size[1]), "channels last is resized to channels last"
    assert torch.equal(fast, slow)
    assert torch.equal(patchify(fast, 14, 1), patchify(slow, 14, 1))


def _expected_of_every_level() -> torch.Tensor:
    """The reference's formula for the levels 0 to 255, by numpy."""
    return torch.from_numpy((np.arange(256, dtype=np.float32) - np.float32(127.5)) / np.float32(127.5))


def test_normalised_pixels_equal_the_reference_at_every_level() -> None:
    levels, expected = torch.arange(256, dtype=torch.uint8), _expected_of_every_level()
    assert torch.equal(normalise(levels), expected)
    assert normalise(levels).dtype == torch.float32
    assert torch.equal(normalise(expected), expected), "normalised pixels stay as they are"
    assert levels.tolist() == list(range(256)), "the pixels themselves must not change"


@pytest.mark.gpu
def test_normalised_pixels_on_a_gpu_equal_those_of_a_cpu() -> None:
    levels = torch.arange(256, dtype=torch.uint8, device="cuda")
    assert torch.equal(normalise(levels).cpu(), _expected_of_every_level())


def test_patches_lie_block_by_block() -> None:
    numbers = torch.arange(2 * 4, dtype=torch.uint8).view(1, 1, 2, 4).expand(1, 3, 2, 4)
    first = patchify(numbers, 1, 2)[:, 0]
    assert first.tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_images_are_read_upright_in_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _picture(40, 60).save(tmp_path / "turned.jpg", exif=exif)
    assert tuple(read_image(tmp_path / "turned.jpg").shape) == (1, 3, 60, 40)
    for mode in ("L", "P", "RGBA", "CMYK", "I;16"):
        assert tuple(read_image(Image.new(mode, (5, 7))).shape) == (1, 3, 7, 5), mode


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_of_a_png_without_pixels_is_that_of_its_header(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "cut.png"
    _picture(40, 60).save(file, exif=exif)
    whole = file.read_bytes()
    assert image_size(file) == tuple(read_image(file).shape[2:])
    file.write_bytes(whole[: whole.index(b"IDAT") + 20])
    assert image_size(file) == ((60, 40) if orientation > 4 else (40, 60))
    with pytest.raises(ValueError, match="cannot read"):
        read_image(file)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM"])
def test_size_of_an_image_reads_only_its_header(tmp_path: Path, format_: str) -> None:
    file = tmp_path / "image"
    _picture(40, 60).save(file, format_)
    with open(file, "ab") as opened:
        opened.truncate(64 << 20)  # bytes behind an image, which no decoder minds
    image_size(file)  # loads the plugins of Pillow
    tracemalloc.start()
    size, (_, peak) = image_size(file), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == (40, 60)
    assert peak < 1 << 20


def test_bytes_and_files_give_the_same(tmp_path: Path) -> None:
    out = io.BytesIO()
    _picture(20, 30).save(out, "PNG")
    (tmp_path / "a.png").write_bytes(out.getvalue())
    assert torch.equal(read_image(out.getvalue()), read_image(str(tmp_path / "a.png")))


def test_broken_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    _picture(200, 300).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    for source in (path, tmp_path / "none.jpg", b"", b"no image"):
        with pytest.raises(ValueError, match=r"cannot read .* give a whole"):
            read_image(source)


def test_frames_may_be_images_arrays_or_tensors() -> None:
    pictures = [_picture(8, 6), _picture(8, 6)]
    array = np.stack([np.asarray(p) for p in pictures])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    assert torch.equal(frames_tensor(pictures), tensor)
    assert torch.equal(frames_tensor(array), tensor)
    assert torch.equal(frames_tensor(tensor), tensor)


@pytest.mark.parametrize(
    ("frames", "advice"),
    [
        ([], "uint8"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one"),
        (np.zeros((2, 8, 8, 3)), "uint8"),
        ([Image.new("RGB", (3, 4)), Image.new("RGB", (4, 4))], "several sizes"),
        ("clip.mp4", "uint8"),
    ],
)
def test_invalid_frames_are_refused(frames: object, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        frames_tensor(frames)


@pytest.mark.parametrize("merge", [1, 2])
def test_frames_can_be_put_together_from_their_patches(merge: int) -> None:
    frames = torch.randint(0, 256, (2, 3, 28, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    again = unpatchify(patchify(frames, 7, merge), (2, 4, 12), merge)
    assert torch.equal(again, frames.permute(0, 2, 3, 1))
