"""Rows whose patches are uint8, and rows whose patches are normalised."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from model import Processor, VideoLLaMA3
from model.config import preset
from model.packed_row import PackedRow
from tests.model.training import training_data


def _row(raw_pixels: bool, text: bool = False) -> PackedRow:
    picture = [] if text else [{"type": "image", "image": training_data.picture(7)}]
    return Processor.tiny()([{"role": "user", "content": [*picture, "What?"]}], raw_pixels=raw_pixels)


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    torch.manual_seed(0)
    return VideoLLaMA3(preset("tiny")).eval()


@pytest.mark.parametrize("bf16", [False, True])
def test_uint8_patches_give_the_same_logits_to_the_bit(model: VideoLLaMA3, bf16: bool) -> None:
    raw, normal = _row(raw_pixels=True), _row(raw_pixels=False)
    assert (raw.pixel_values.dtype, normal.pixel_values.dtype) == (torch.uint8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        assert torch.equal(model(**raw).logits, model(**normal).logits)


def test_uint8_patches_stay_so_when_a_row_gets_a_dtype() -> None:
    """The order of casts decides about last bits: uint8, float32, normalised, bf16."""
    half = VideoLLaMA3(preset("tiny")).to(torch.bfloat16)
    raw, normal = (_row(raw_pixels).to("cpu", torch.bfloat16) for raw_pixels in (True, False))
    assert (raw.pixel_values.dtype, normal.pixel_values.dtype) == (torch.uint8, torch.bfloat16)
    assert torch.equal(half(**raw).logits, half(**normal).logits)


def test_text_packed_with_uint8_patches_leaves_them_uint8() -> None:
    image = _row(raw_pixels=True)
    packed = PackedRow.pack([_row(raw_pixels=True, text=True), image])
    assert packed.pixel_values.dtype == torch.uint8
    assert torch.equal(packed.pixel_values, image.pixel_values)


def test_uint8_packed_with_normalised_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="all uint8 or all normalised"):
        PackedRow.pack([_row(raw_pixels=True), _row(raw_pixels=False)])
