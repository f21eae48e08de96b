"""Sizes of samples as the trainer prepares them."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadSampleError
from model.processor import Processor
from model.prune import Pruning
from model.training.data.measurement import QUANTITIES, Measured, ObservedProcessor, film_seconds, measure
from model.training.data.prepare import for_stage
from model.training.data.samples import Sample
from model.training.stage import Stage
from tests.model import clips
from tests.model.training.training_data import picture


def stage(**settings: Any) -> Stage:
    return Stage.model_validate({"name": "s", "learning_rates": {"": 1.0}, "mixture": {"a": 1}, "steps": 1} | settings)


def measured(parts: list[Any], answer: str = "grey", **settings: Any) -> Measured:
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    each = stage(**settings)
    return measure(ObservedProcessor(for_stage(Processor.tiny(), each)), Sample("a 1", turns), each)


def quantities(sample: Measured) -> dict[str, float]:
    return {name: float(value) for name, value in zip(QUANTITIES, sample.sizes, strict=True) if value}


def test_tokens_of_an_image_and_its_answer_are_told_apart() -> None:
    image = {"type": "image", "image": picture(0)}  # 56 x 56 pixels are 4 x 4 patches
    sizes = quantities(measured([image, "What?"]))
    assert sizes["learned"] == len("grey") + 1, "each letter is a token, and the end of the turn"
    assert (sizes["vision"], sizes["patches"], sizes["images"]) == (16, 16, 1)
    (piece,) = measured([image, "What?"]).pieces
    assert sizes["text"] == piece.tokens - 16 - 5
    assert (sizes["vision_squares"], sizes["language_squares"]) == (16**2, piece.tokens**2)


def test_frames_and_seconds_of_a_film_are_counted(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "clip.mp4", [k / 2 for k in range(8)])  # 4 seconds
    film = {"type": "video", "video": str(clip)}
    sizes = quantities(measured([film, "What?"], fps=2.0))
    assert (sizes["frames"], sizes["seconds"]) == (8, 4)
    assert "images" not in sizes
    pruned = quantities(measured([film, "What?"], fps=2.0, pruning=Pruning(threshold=255)))
    assert pruned["patches"] == sizes["patches"]
    assert 0 < pruned["vision"] < sizes["vision"]


def test_stream_has_its_film_once(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "clip.mp4", [k / 2 for k in range(8)])
    parts = [{"type": "video", "video": str(clip), "until": until} for until in (1.0, 3.0)]
    sizes = quantities(measured([*parts, "What?"]))
    assert (sizes["frames"], sizes["seconds"]) == (4, 4)


def test_bad_sample_is_skipped_with_its_error() -> None:
    skipped = measured([{"type": "image", "image": b"no image"}])
    assert quantities(skipped) == {"samples": 1, "skipped": 1}
    assert skipped.error.startswith("a 1: ")
    refused = BadSampleError("a 2: no conversation")
    each = stage()
    assert measure(ObservedProcessor(Processor.tiny()), refused, each).error == "a 2: no conversation"
    assert measure(ObservedProcessor(Processor.tiny()), BadSampleError(), each).error


def test_bad_sample_keeps_no_pixels_in_memory() -> None:
    """Too long for a row: it was decoded before that was seen."""
    turns = [{"role": "user", "content": [{"type": "image", "image": picture(0)}, "?" * 99]}]
    sample, each = Sample("a 1", [*turns, {"role": "assistant", "content": "grey"}]), stage(tokens=64, visual_tokens=32)
    kept = weakref.ref(sample)
    skipped = measure(ObservedProcessor(for_stage(Processor.tiny(), each)), sample, each)
    del sample
    gc.collect()
    assert skipped.error
    assert kept() is None


@pytest.mark.parametrize(("times", "seconds"), [((0, 1, 2), 3), ((5, 7), 4), ((3,), 0.5), ((), 0)])
def test_film_is_as_long_as_its_frames_stand_for(times: tuple[float, ...], seconds: float) -> None:
    assert film_seconds(times, fps=2.0) == seconds
