"""The demo's scenes: what is said of them is what is drawn, and the exam shows what training does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from demo_scenes import (
    COLOURS,
    GROUNDS,
    PHOTOGRAPH,
    SIDE,
    SIZES,
    THINGS,
    Clip,
    Placed,
    Scene,
    Thing,
    caption,
    clip_caption,
    draw,
    draw_clip,
    moving_things,
    pairs,
    questions,
    random_clip,
    random_scene,
)
from PIL import Image

GREEN = [Image.new("RGB", (2 * SIDE, 2 * SIDE), (90, 140, 60))]  # no colour of a thing


def columns_of(picture: Image.Image, colour: str) -> Sequence[int]:
    """The columns of a picture that have pixels of a thing's colour."""
    pixels = np.asarray(picture)
    return sorted(set(np.nonzero((pixels == COLOURS[colour]).all(-1))[1].tolist()))


@pytest.mark.parametrize("ground", [*GROUNDS, PHOTOGRAPH])
def test_caption_says_the_colour_of_each_side(ground: str) -> None:
    for seed in range(30):
        random = Random(seed)
        left, right = random.sample(list(COLOURS), 2)
        scene = Scene(Placed(Thing(left, "cross"), "small"), Placed(Thing(right, "circle"), "large"), ground)
        picture = draw(scene, random, GREEN)
        said = re.fullmatch(
            r"A small (\w+) cross on the left and a large (\w+) circle on the right, .*", caption(scene)
        )
        assert said is not None
        assert max(columns_of(picture, said[1])) < SIDE // 2 <= min(columns_of(picture, said[2]))
        assert picture.size == (SIDE, SIDE)


def test_ground_is_the_one_of_the_caption() -> None:
    for ground, colour in [*GROUNDS.items(), (PHOTOGRAPH, (90, 140, 60))]:
        scene = Scene(Placed(Thing("red", "cross"), "small"), Placed(Thing("blue", "circle"), "small"), ground)
        corner = draw(scene, Random(0), GREEN).getpixel((0, 0))
        assert corner == colour
        assert caption(scene).endswith("on a photograph." if ground == PHOTOGRAPH else f"on {ground} ground.")


def test_shapes_fill_what_they_should_in_both_sizes() -> None:
    shares = {"square": 1.0, "circle": np.pi / 4, "triangle": 0.5, "cross": 0.65}  # of the square around it
    other = Placed(Thing("blue", "circle"), "small")
    for shape, share in shares.items():
        for size, radius in SIZES.items():
            scene = Scene(Placed(Thing("red", shape), size), other, "grey")
            left = np.asarray(draw(scene, Random(1), []))[:, : SIDE // 2]
            drawn = (left != GROUNDS["grey"]).any(-1).sum() / (2 * radius + 1) ** 2
            assert drawn == pytest.approx(share, abs=0.06), (shape, size)


def test_answers_are_true_of_the_scene() -> None:
    training, _ = pairs()
    for seed in range(200):
        scene = random_scene(training, Random(seed))
        things = {str(scene.left.thing): "left", str(scene.right.thing): "right"}
        sizes = {str(scene.left.thing): scene.left.size, str(scene.right.thing): scene.right.size}
        what, where, there, larger = questions(scene, Random(seed))
        side = "left" if "left" in what[0] else "right"
        assert things[what[1].split(maxsplit=2)[2].rstrip(".")] == side
        assert where[1] == f"On the {things[where[0].removeprefix('Where is the ').rstrip('?')]}."
        assert (there[0].removeprefix("Is there a ").rstrip("?") in things) == (there[1] == "Yes.")
        if larger[1] == "Neither.":
            assert len(set(sizes.values())) == 1
        else:
            name = larger[1].removeprefix("The ").rstrip(".")
            assert [size for thing, size in sizes.items() if thing != name] == ["small"]
            assert sizes[name] == "large"


def test_exam_shows_pairs_that_training_never_shows() -> None:
    training, exam = ({frozenset(pair) for pair in part} for part in pairs())
    assert len(exam) == 28
    assert len(training | exam) == 276
    shown = [random_scene(pairs()[0], Random(seed)) for seed in range(3000)]
    assert not {frozenset((scene.left.thing, scene.right.thing)) for scene in shown} & exam
    assert {thing for pair in training for thing in pair} == set(THINGS), "each thing by itself is known"
    moving, exam_moving = map(set, moving_things())
    assert not moving & exam_moving
    assert moving | exam_moving == set(THINGS)


@pytest.mark.parametrize("towards", ["left", "right"])
def test_clip_moves_to_the_side_that_it_says(towards: str) -> None:
    for seed in range(20):
        random = Random(seed)
        made = random_clip(THINGS, random)
        clip = Clip(made.placed, towards, made.ground)
        places = [np.mean(columns_of(frame, clip.placed.thing.colour)) for frame in draw_clip(clip, random)]
        steps = np.diff(places)
        assert (steps > 8).all() if towards == "right" else (steps < -8).all()
        assert f"moves to the {towards}, on {clip.ground} ground." in clip_caption(clip)
