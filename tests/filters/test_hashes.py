"""Hashes: those of imagehash and SHA-256 bit for bit, what has nothing to hash, and JPEGs decoded small."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from core.images import decode
from filters.hashes import Hashes, content_hash, perceptual_hash


def bits(number: int | None) -> str:
    assert number is not None
    assert -(2**63) <= number < 2**63
    return f"{number % 2**64:016x}"


def test_phash_equals_that_of_imagehash(photographs: list[Path]) -> None:
    hashes = []
    for file in photographs:
        image = decode(file.read_bytes())
        hashes.append(perceptual_hash(image))
        assert bits(hashes[-1]) == str(imagehash.phash(image)), file.name
    assert any(number is not None and number < 0 for number in hashes), "the sign bit is never tried"


def test_content_hash_is_the_prefix_of_sha256() -> None:
    assert bits(content_hash(b"abc")) == "ba7816bf8f01cfea"  # FIPS 180-2, appendix B.1
    assert content_hash(b"abc") == 0xBA7816BF8F01CFEA - 2**64
    assert content_hash(b"") == int(hashlib.sha256(b"").hexdigest()[:16], 16) - 2**64


@pytest.mark.parametrize("colour", ["black", "white", "grey", (10, 200, 30)])
def test_blank_image_has_no_phash(colour: str | tuple[int, int, int]) -> None:
    assert perceptual_hash(Image.new("RGB", (100, 80), colour)) is None


def test_faint_noise_gradients_and_stripes_have_no_phash() -> None:
    noise = np.random.default_rng(0).normal(128, 4, (300, 400, 3)).astype(np.uint8)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (200, 1))
    stripes = np.tile(np.repeat(np.array([0, 255], np.uint8), 20), (200, 5))
    images = [Image.fromarray(noise), *(Image.fromarray(part) for one in (ramp, stripes) for part in (one, one.T))]
    assert [perceptual_hash(image.convert("RGB")) for image in images] == [None] * 5


def test_image_of_few_words_on_white_has_a_phash() -> None:
    page = Image.new("RGB", (320, 320), "white")
    page.paste("black", (40, 50, 200, 60))
    assert bits(perceptual_hash(page)) == str(imagehash.phash(page))


def test_reduced_decoding_changes_at_most_two_bits(photographs: list[Path]) -> None:
    hasher = Hashes().load()
    distances = []
    for file in photographs:
        whole = decode(file.read_bytes())
        scale = 512 / min(whole.size)
        data = io.BytesIO()
        whole.resize((round(whole.width * scale), round(whole.height * scale))).save(data, "JPEG", quality=85)
        small = decode(data.getvalue(), hasher.side)
        assert min(small.size) == 128
        pair = (imagehash.hex_to_hash(bits(perceptual_hash(image))) for image in (decode(data.getvalue()), small))
        distances.append(next(pair) - next(pair))
    assert max(distances) <= 2, distances


def test_hashes_have_the_declared_columns() -> None:
    hasher = Hashes().load()
    image = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 50).convert("RGB")
    blank = Image.new("RGB", (64, 48))
    facts = hasher([hasher.prepare(image, b"a"), hasher.prepare(blank, b"b"), hasher.prepare(image, b"a")])
    assert facts.schema.equals(Hashes.writes, check_metadata=True)
    assert facts["phash"].null_count == 1
    assert facts["phash"][0] == facts["phash"][2]
    assert len(facts["content_hash"].unique()) == 2
    assert hasher([]).schema.equals(Hashes.writes)
    assert all(b"nominal" in field.metadata for field in Hashes.writes), "a threshold on a hash says nothing"
