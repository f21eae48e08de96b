"""The OCR engine: text and place in pixels of the image, slim images in little memory, one line where it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from core import ocr, pretrained
from core.ocr import Reader


@pytest.fixture(scope="module")
def reader() -> Reader:
    pytest.importorskip("rapidocr")
    return Reader("test")


def test_text_in_a_slim_image_is_found_at_its_place(reader: Reader) -> None:
    """RapidOCR alone would scale the shorter side of such an image up to 736 pixels, and the longer one with it."""
    banner = Image.new("RGB", (40, 2000), "white")
    sign = Image.new("RGB", (120, 40), "white")
    ImageDraw.Draw(sign).text((4, 4), "WAY OUT", fill="black", font=ImageFont.load_default(26))
    banner.paste(sign.rotate(90, expand=True), (0, 1000))
    (line,) = reader.lines(banner)
    left, top, right, bottom = line.box
    assert line.text.replace(" ", "") == "WAYOUT"
    assert 0 <= left < right <= 40
    assert 980 <= top < bottom <= 1140


@pytest.mark.parametrize("size", [(3, 100_000), (100_000, 3)])
def test_slim_image_is_padded_to_a_small_one(size: tuple[int, int]) -> None:
    pixels, scale, padding = ocr._readable(Image.new("RGB", size))
    assert sorted(pixels.shape) == [3, 500, 2000]
    assert (scale, max(padding)) == (50, 249)


def test_provenance_names_weights_and_packages(reader: Reader) -> None:
    assert len(str(reader.provenance["weights"])) == 64
    assert reader.provenance.keys() == {"weights", "dtype", "rapidocr", "onnxruntime"}


def test_missing_package_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^ocr needs the package rapidocr: pip install 'vl3syn\[ocr\]'$"):
        Reader("ocr")


def test_missing_weights_are_refused_and_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = Path(pytest.importorskip("rapidocr").__file__).parent
    (tmp_path / "models").mkdir()
    for file in sorted((installed / "models").glob("*det*.onnx")):
        shutil.copy(file, tmp_path / "models")
    monkeypatch.setattr(ocr, "package_folder", lambda name: tmp_path)
    with pytest.raises(ValueError, match=r"^ocr: .*\.onnx is missing: install rapidocr 3.10 again"):
        Reader("ocr")


def test_engine_gets_the_threads_of_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("rapidocr")
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(package, "RapidOCR", lambda params: given.append(params))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Reader("ocr")
    assert given[0]["EngineConfig.onnxruntime.intra_op_num_threads"] == 3
