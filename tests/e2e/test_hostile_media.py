"""Broken and strange files through processor and model: one clear line, or a documented result."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model import Processor, VideoLLaMA3
from model.config import preset
from model.processor_config import ProcessorConfig
from tests.model.clips import turn, without_frames, write
from tests.model.oracles import widen

TENTHS = [k / 10 for k in range(100)]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    built = VideoLLaMA3(preset("tiny"))
    widen(built)
    return built.eval()


def _image(source: Any) -> dict[str, Any]:
    return {"type": "image", "image": source}


def _video(source: Any, **options: Any) -> dict[str, Any]:
    return {"type": "video", "video": source, **options}


def _noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _asked(processor: Processor, *parts: dict[str, Any]) -> Any:
    return processor([{"role": "user", "content": [*parts, "What?"]}])


def _logits(processor: Processor, model: VideoLLaMA3, *parts: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        logits = model(**_asked(processor, *parts)).logits
    assert torch.isfinite(logits).all()
    return logits


def _grid(processor: Processor, *parts: dict[str, Any]) -> list[list[int]]:
    grid: list[list[int]] = _asked(processor, *parts)["grid_thw"].tolist()
    return grid


# Videos


@pytest.mark.parametrize("ending", ["mkv", "avi", "mp4"])
def test_film_without_frames_is_refused(processor: Processor, tmp_path: Path, ending: str) -> None:
    with pytest.raises(ValueError, match=r"a video without frames: give another|no video stream: give a video"):
        _asked(processor, _video(str(without_frames(tmp_path / f"sound.{ending}"))))


@pytest.mark.parametrize("frames", [[], np.zeros((0, 9, 9, 3), np.uint8), torch.zeros(0, 3, 9, 9, dtype=torch.uint8)])
def test_invalid_list_of_frames_is_refused(processor: Processor, frames: Any) -> None:
    with pytest.raises(ValueError, match=r"without frames: give at least one|must be PIL images"):
        _asked(processor, _video(frames))


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.6, 0.99])
def test_truncated_film_is_refused_or_lacks_its_last_moment(processor: Processor, tmp_path: Path, share: float) -> None:
    whole = write(tmp_path / "whole.mkv", TENTHS).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: int(len(whole) * share)])
    if share == 0.99:
        assert _grid(processor, _video(str(path)))[0][0] == 10
        return
    with pytest.raises(ValueError, match=r"cut\.mkv: (cannot be read as a video|breaks off: at .* s, before 9\.0 s)"):
        _asked(processor, _video(str(path)))


def test_truncated_film_is_read_up_to_the_suggested_end(
    processor: Processor, model: VideoLLaMA3, tmp_path: Path
) -> None:
    whole = write(tmp_path / "whole.mkv", TENTHS)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"or end=(\d+\.\d)$") as error:
        _asked(processor, _video(str(cut)))
    end = float(str(error.value).rsplit("=", 1)[1])
    expected = _logits(processor, model, _video(str(whole), end=end))
    assert torch.equal(_logits(processor, model, _video(str(cut), end=end)), expected)


def test_title_in_another_encoding_is_read(processor: Processor, tmp_path: Path) -> None:
    path = write(tmp_path / "old.mkv", TENTHS[:10])
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"L\xe4vf"))
    assert _grid(processor, _video(str(path)))[0][0] == 1


def test_truncated_film_with_its_index_in_front_is_refused(processor: Processor, tmp_path: Path) -> None:
    plain, path = write(tmp_path / "plain.mp4", TENTHS), tmp_path / "fast.mp4"
    with av.open(str(plain)) as read, av.open(str(path), "w", options={"movflags": "faststart"}) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"fast\.mp4: (breaks off|cannot be read)"):
        _asked(processor, _video(str(path)))


def test_damaged_film_is_a_one_line_error_or_gives_frames(
    processor: Processor, model: VideoLLaMA3, tmp_path: Path
) -> None:
    whole, path, rng = write(tmp_path / "whole.mkv", TENTHS[:30]).read_bytes(), tmp_path / "bad.mkv", random.Random(0)
    answered = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            _logits(processor, model, _video(str(path)))
            answered += 1
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
    assert 0 < answered < 40


@pytest.mark.parametrize(("matrix", "quarters"), [((0, 1, -1, 0), 3), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_rotated_film_gives_the_answer_of_an_upright_one(
    processor: Processor, model: VideoLLaMA3, tmp_path: Path, matrix: tuple[int, int, int, int], quarters: int
) -> None:
    coded = write(tmp_path / "phone.mp4", TENTHS[:20])
    with av.open(str(coded)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    upright = np.rot90(np.stack(frames[::10]), quarters, axes=(1, 2)).copy()
    turned = _logits(processor, model, _video(str(turn(coded, matrix))))
    assert torch.equal(turned, _logits(processor, model, _video(upright)))
    assert turned.shape != (lying := _logits(processor, model, _video(np.stack(frames[::10])))).shape or not (
        torch.allclose(turned, lying, atol=1e-3)
    )


def test_film_longer_than_the_budget_fits_it(processor: Processor, model: VideoLLaMA3, tmp_path: Path) -> None:
    """20 minutes at 1 frame per second: 180 of the 1200 frames, evenly spaced, at the size that fits."""
    film = str(write(tmp_path / "long.mp4", [10.0 * k for k in range(121)], size=(360, 640)))
    row = _asked(processor, _video(film))
    assert row["grid_thw"][0, 0] == 180
    assert 12_000 < len(row["keep_mask"]) <= 16_384
    tight = Processor(processor.tokenizer, ProcessorConfig(max_tokens=4000))
    assert len(_asked(tight, _video(film))["keep_mask"]) <= 4000
    _logits(tight, model, _video(film))
    with pytest.raises(ValueError, match="give fewer images or frames, or raise max_tokens"):
        _asked(Processor(processor.tokenizer, ProcessorConfig(max_tokens=1000)), _video(film))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (17, 33), (20, 400), (400, 20)])
def test_films_of_unusual_sizes_are_read(
    processor: Processor, model: VideoLLaMA3, tmp_path: Path, height: int, width: int
) -> None:
    with av.open(str(tmp_path / "strange.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.height, stream.width, stream.pix_fmt = height, width, "bgr0"
        for shade in (0, 90, 180):
            pixels = np.full((height, width, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    part = _video(str(tmp_path / "strange.mkv"), fps=5)
    _logits(processor, model, part)
    ((frames, rows, columns),) = _grid(processor, part)
    assert frames == 3
    assert (rows > columns) == (height > width)


@pytest.mark.parametrize("name", ["fps", "max_frames", "start", "end"])
@pytest.mark.parametrize("value", [-1, "2", float("nan"), [1]])
def test_invalid_sampling_of_a_film_is_refused(processor: Processor, tmp_path: Path, name: str, value: Any) -> None:
    film = str(write(tmp_path / "clip.mp4", TENTHS[:10]))
    for source in (film, np.zeros((2, 30, 30, 3), np.uint8)):
        with pytest.raises(ValueError, match="give numbers, fps above 0"):
            _asked(processor, _video(source, **{name: value}))
    assert _grid(processor, _video(film, **{name: None})) == _grid(processor, _video(film))


# Images


def test_image_of_one_pixel_is_enlarged_to_the_minimum(processor: Processor, model: VideoLLaMA3) -> None:
    """Grown to the minimum of 16 tokens; all patches are the same, so it is that pixel."""
    row = _asked(processor, _image(Image.new("RGB", (1, 1), (255, 0, 0))))
    assert row["grid_thw"].tolist() == [[1, 4, 4]]
    assert torch.equal(row["pixel_values"], row["pixel_values"][:1].expand(16, -1))
    _logits(processor, model, _image(_noise(1, 1)))


@pytest.mark.parametrize(("height", "width"), [(20, 400), (400, 20), (100, 2000), (1, 200), (2, 40)])
def test_long_strips_keep_their_direction(processor: Processor, model: VideoLLaMA3, height: int, width: int) -> None:
    ((_, rows, columns),) = _grid(processor, _image(_noise(height, width)))
    assert (rows > columns) == (height > width)
    assert rows * columns >= 16
    _logits(processor, model, _image(_noise(height, width)))


def test_chat_fits_400_images_and_refuses_1200(processor: Processor, model: VideoLLaMA3) -> None:
    picture = _noise(300, 200)
    row = _asked(processor, *[_image(picture)] * 400)
    assert len(row["keep_mask"]) <= 16_384
    assert len(set(map(tuple, row["grid_thw"].tolist()))) == 1, "each gets the same"
    _logits(processor, model, *[_image(picture)] * 400)
    with pytest.raises(ValueError, match=r"1200 images and clips need at least .* give fewer"):
        _asked(processor, *[_image(picture)] * 1200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_damaged_image_is_a_one_line_error_or_gives_pixels(processor: Processor, kind: str) -> None:
    out, rng = io.BytesIO(), random.Random(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    _noise(56, 84).save(out, kind, exif=exif)
    assert _grid(processor, _image(out.getvalue())) == ([[1, 4, 6]] if kind == "GIF" else [[1, 6, 4]])
    refused = 0
    for _ in range(150):
        damaged = bytearray(out.getvalue())[: rng.choice([None, rng.randrange(len(out.getvalue()))])]
        for _ in range(rng.randrange(1, 5) if damaged else 0):
            damaged[rng.randrange(min(len(damaged), 250))] = rng.randrange(256)
        try:
            _asked(processor, _image(bytes(damaged)))
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
            assert ";" in str(error) or "crop it" in str(error)  # noqa: PT017
    assert refused > 40


def test_image_with_damaged_exif_is_not_rotated(processor: Processor) -> None:
    """What Pillow raises for a count that is none is a TypeError or a struct.error."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x8825] = 6, {1: "N", 2: (1.0, 2.0, 3.0)}
    _noise(56, 84).save(out, "JPEG", exif=exif)
    whole = out.getvalue()
    assert _grid(processor, _image(whole)) == [[1, 6, 4]]
    start, end, rng = whole.index(b"Exif") + 14, whole.index(b"Exif") + len(exif.tobytes()), random.Random(2)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(start, end)] = rng.randrange(256)
        assert _grid(processor, _image(bytes(damaged))) in ([[1, 6, 4]], [[1, 4, 6]])


def test_tiff_is_rotated_once(processor: Processor) -> None:
    """Pillow turns its pixels itself, and says its size turned already."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    _noise(56, 84).save(out, "TIFF", exif=exif)
    row = _asked(processor, _image(out.getvalue()))
    expected = _asked(processor, _image(_noise(56, 84).transpose(Image.Transpose.ROTATE_270)))
    assert torch.equal(row["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"])
def test_image_of_every_mode_is_read(processor: Processor, model: VideoLLaMA3, mode: str) -> None:
    _logits(processor, model, _image(Image.new(mode, (30, 40))))


@pytest.mark.parametrize("source", [None, 3, np.zeros((9, 9, 3), np.uint8), Image.new("RGB", (0, 5)), b"", "."])
def test_source_that_is_not_an_image_is_refused(processor: Processor, source: Any) -> None:
    with pytest.raises(ValueError, match=r"give a file, its bytes|crop it|cannot read"):
        _asked(processor, _image(source))
