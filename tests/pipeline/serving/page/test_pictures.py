from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.images import patchify, unpatchify
from model.media import Medium
from pipeline.serving.page.pictures import darken, draw_boxes, frame_views, named_boxes


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 2]), st.sampled_from([2, 14]))
def test_frames_come_back_out_of_their_patches(t: int, rows: int, columns: int, merge: int, side: int) -> None:
    h, w = rows * merge, columns * merge
    frames = torch.randint(0, 256, (t, 3, h * side, w * side), dtype=torch.uint8)
    back = unpatchify(patchify(frames, side, merge), (t, h, w), merge)
    assert torch.equal(back, frames.permute(0, 2, 3, 1))


def test_pruned_patches_are_dark_and_kept_ones_are_not() -> None:
    frame = np.full((4, 6, 3), 200, np.uint8)
    keep = np.array([[True, False, True], [False, True, True]])
    dark = darken(frame, keep)
    assert dark[:2, :2].min() == dark[2:, 2:].min() == 200
    assert dark[:2, 2:4].max() == dark[2:, :2].max() == 44


def test_views_tell_time_and_kept_share_of_each_frame() -> None:
    frames = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    keep = torch.tensor([True] * 4 + [True, False, False, False])
    medium = Medium(patchify(frames, 2, 2), (2, 4, 4), 2, keep, (0.0, 1.5))
    views = frame_views(medium, film=3)
    assert [(view.time, view.kept, view.film) for view in views] == [(0.0, 1.0, 3), (1.5, 0.25, 3)]
    second = np.asarray(Image.open(io.BytesIO(views[1].jpeg)).convert("L"), dtype=int)
    assert second[0, 0] - second[7, 7] > 100


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("<ref>a cat</ref>[[0,0,500,1000]]", [("a cat", (0, 0, 100, 100))]),
        ("<ref>cat</ref><box>[100,200,300,400]</box> here", [("cat", (20, 20, 60, 40))]),
        (
            "[0,0,1000,1000] <ref>cat</ref>[[0,0,10,10],[0,0,20,20]]",
            [("", (0, 0, 200, 100)), ("cat", (0, 0, 2, 1)), ("cat", (0, 0, 4, 2))],
        ),
        ("<ref>cat</ref> [[900,0,100,10]] [2000,0,1,1]", []),
        ("no box", []),
    ],
)
def test_boxes_have_the_names_before_them(answer: str, boxes: list[object]) -> None:
    assert named_boxes(answer, 200, 100) == boxes


def test_box_is_drawn_at_its_place_on_the_image() -> None:
    image = Image.new("RGB", (400, 400), "white")
    drawn = draw_boxes(image, "<ref>cat</ref>[[500,500,750,750]]")
    assert drawn is not None
    pixels = np.asarray(Image.open(io.BytesIO(drawn)), dtype=int)
    assert pixels.shape == (400, 400, 3)
    assert pixels[250, 200].min() < 150, "the left edge is drawn"
    assert pixels[250, 250].min() > 240, "the inside is not"
    assert pixels[100, 100].min() > 240
    assert draw_boxes(image, "nothing") is None
