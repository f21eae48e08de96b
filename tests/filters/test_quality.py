"""Quality: known answers by hand, what defects do to real photographs, images of any size."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from core.photometry import colourfulness
from filters.quality import Quality, blockiness, contrast, exposure, scaled, sharpness
from manifests.schemas import bounds

NOT_PHOTOGRAPHS = set(
    """
    5points adelson apriltag12 chessboard_GRAY chessboard_RGB color eg-morph1 eg-morph2 fisheye_target horse lena logo
    monalisa multiblobs multiblobs_edgecase no_time_for_that_tiny page phantom scale-space segmentation shark1 shark2
    shark2a sharks text wally wheres-wally
    """.split()
)

Values = npt.NDArray[np.float64]


def rgb(values: object) -> Image.Image:
    return Image.fromarray(np.asarray(values, np.uint8)).convert("RGB")


def luma(values: object) -> npt.NDArray[np.int16]:
    return np.asarray(values, np.int16)


def facts_of(*images: Image.Image) -> pa.Table:
    measure = Quality().load()
    return measure([measure.prepare(image) for image in images])


def score(image: Image.Image) -> float:
    return Quality().load().prepare(image).quality


def well_exposed(value: int) -> float:
    return math.exp(-((value / 255 - 0.5) ** 2) / 0.08)


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Thirty real photographs, at most 640 pixels wide and high, out of wheels that are not imported."""
    files: list[Path] = []
    for package, inside in (("mvtbdata", "images"), ("skimage", "data")):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        paths = sorted((Path(spec.origin).parent / inside).rglob("*"))
        files += [file for file in paths if file.suffix in (".png", ".jpg") and file.stem not in NOT_PHOTOGRAPHS]
    files = [file for file in files if file.stat().st_size < 2**20]  # the others take seconds to decode
    images = [Image.open(file).convert("RGB") for file in files[:: len(files) // 30][:30]]
    for image in images:
        image.thumbnail((640, 640))
    assert len(images) == 30
    return images


@pytest.fixture(scope="module")
def scores(photographs: list[Image.Image]) -> list[float]:
    return [score(image) for image in photographs]


def test_flat_grey_has_no_contrast_or_sharpness() -> None:
    (row,) = facts_of(Image.new("RGB", (64, 48), (128, 128, 128))).to_pylist()
    exposed = row.pop("exposure")
    assert exposed == pytest.approx(well_exposed(128))
    assert row == {"quality": 0, "sharpness": 0, "contrast": 0, "colourfulness": 0, "blockiness": 0}


def test_contrast_of_checkerboards_is_right() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2
    assert contrast(luma(255 * board)) == pytest.approx(0.5)  # the largest there is
    assert contrast(luma(51 * board)) == pytest.approx(0.1)


def test_colourfulness_of_known_colours_is_right() -> None:
    red, green = (255, 0, 0), (0, 255, 0)
    # Red less green is 255 and -255, yellow less blue 127.5 in both: 255 + 0.3 × 127.5.
    assert colourfulness(rgb([[red, green]])) == pytest.approx(293.25)
    assert colourfulness(rgb([[red]])) == pytest.approx(0.3 * math.hypot(255, 127.5))
    assert colourfulness(rgb([[(9, 9, 9), (200, 200, 200)]])) == 0


def test_exposure_of_known_images_is_right() -> None:
    assert exposure(rgb([[(100, 100, 100), (20, 20, 20)]])) == pytest.approx((well_exposed(100) + well_exposed(20)) / 2)
    # A pixel is burnt out if any of its channels is.
    mean = (well_exposed(128) * 5 + well_exposed(255)) / 6
    assert exposure(rgb([[(128, 128, 128), (128, 255, 128)]])) == pytest.approx(mean / 2)
    assert exposure(Image.new("RGB", (8, 8), "white")) == 0


def test_sharpness_of_a_ramp_and_noise_is_right() -> None:
    ramp = np.tile(np.arange(256), (64, 1))  # a further blur changes it only at its ends
    assert sharpness(luma(ramp)) == sharpness(luma(ramp.T)) < 0.01
    board = 255 * (np.indices((256, 256)).sum(axis=0) % 2)  # and here takes 8/9 of every step
    assert sharpness(luma(board)) == pytest.approx(8 / 9, abs=0.005)


def test_sharpness_equals_the_explicit_filter() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30))
    assert sharpness(luma(image)) == pytest.approx(min(lost_by_filter(image), lost_by_filter(image.T)))


def lost_by_filter(image: npt.NDArray[np.int64]) -> float:
    """Crete et al. 2007, step by step, along the rows."""
    low_pass: list[Values] = [np.convolve(np.pad(row, 4, mode="edge"), np.ones(9) / 9, "valid") for row in image]
    steps, left = np.abs(np.diff(image, axis=1)), np.abs(np.diff(np.array(low_pass), axis=1))
    return float(np.maximum(steps - left, 0).sum() / steps.sum())


@pytest.mark.parametrize("cropped", [(0, 0), (3, 5)])
def test_blockiness_of_jpeg_blocks_is_measured(cropped: tuple[int, int]) -> None:
    blocks = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((8, 8)))
    left, top = cropped
    assert blockiness(luma(100 + 50 * blocks)[top:, left:]) == pytest.approx(50 / 51)
    assert blockiness(luma(np.tile(np.arange(64), (64, 1)))) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (15, 17), (16, 16), (40_000, 9)])
def test_measures_of_any_size_are_within_their_ranges(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3))
    facts = facts_of(rgb(noise), Image.new("RGB", size, "black"), Image.new("RGB", size, "white"))
    for field in Quality.writes:
        low, high = bounds(field)
        values = facts[field.name].to_numpy()
        assert np.isfinite(values).all()
        assert ((values >= low) & (values <= high)).all()


def test_quality_has_the_declared_columns(photographs: list[Image.Image]) -> None:
    facts = facts_of(*photographs[:5])
    assert facts.schema.equals(Quality.writes, check_metadata=True)
    assert facts.num_rows == 5
    assert facts.equals(facts_of(*photographs[:5]))
    assert facts_of().schema.equals(Quality.writes)
    assert facts_of().num_rows == 0
    for row in facts.to_pylist():
        parts = row["sharpness"] * min(1, row["contrast"] / 0.2) * row["exposure"] * (1 - row["blockiness"])
        assert row["quality"] == pytest.approx(parts**0.25, rel=1e-5)


def compressed(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=10)
    return Image.open(data)


@pytest.mark.parametrize(
    "degrade",
    [
        lambda image: image.filter(ImageFilter.GaussianBlur(3)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.9),
        lambda image: ImageEnhance.Brightness(image).enhance(0.4),
        compressed,
        lambda image: compressed(image).crop((3, 5, image.width, image.height)),
    ],
    ids=["blurred", "over-exposed", "under-exposed", "compressed", "compressed and cropped"],
)
def test_worse_photographs_score_lower(
    photographs: list[Image.Image], scores: list[float], degrade: Callable[[Image.Image], Image.Image]
) -> None:
    lower = [score(degrade(image)) < before for image, before in zip(photographs, scores, strict=True)]
    assert sum(lower) >= 27, [number for number, right in enumerate(lower) if not right]


def test_black_and_white_photograph_keeps_its_score(photographs: list[Image.Image], scores: list[float]) -> None:
    coloured = [pair for pair in zip(photographs, scores, strict=True) if colourfulness(pair[0]) > 30]
    assert len(coloured) >= 5
    for image, before in coloured:
        without = Quality().load().prepare(image.convert("L").convert("RGB"))
        assert without.colourfulness == 0
        assert without.quality == pytest.approx(before, abs=0.1)


def test_score_of_a_doubled_image_is_nearly_equal(photographs: list[Image.Image], scores: list[float]) -> None:
    for image, before in zip(photographs, scores, strict=True):
        double = image.resize((2 * image.width, 2 * image.height), Image.Resampling.LANCZOS)
        assert score(double) == pytest.approx(before, abs=0.05)


def test_large_image_is_scaled_to_the_working_size() -> None:
    assert scaled(Image.new("RGB", (640, 480))).size == (640, 480)
    assert scaled(Image.new("RGB", (1280, 960))).size == (640, 480)
    assert scaled(Image.new("RGB", (9, 40_000))).size == (8, 36_950)  # a strip is not scaled to a line
    assert scaled(Image.new("RGB", (1, 400_000))).size == (1, 350_542)
