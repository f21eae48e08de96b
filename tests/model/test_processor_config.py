"""Settings of preprocessors: each is obeyed, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from model import Processor
from model.processor_config import ProcessorConfig, TokenLimits
from model.tokenizer import byte_tokenizer
from tests.model import clips

STILL = {"role": "user", "content": [{"type": "video", "video": np.zeros((3, 56, 56, 3), np.uint8)}]}
HALF = [0.5, 0.5, 0.5]
ORIGINAL = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": HALF,
    "image_std": HALF, "resample": 3, "rescale_factor": 0.00392156862745098, "patch_size": 14, "min_tokens": 16,
    "max_tokens": 16384, "force_size_factor": None,
}  # fmt: skip
"""preprocessor_config.json of the published checkpoints."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def _write(folder: Path, **files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"use_token_compression": False}, 48),
        ({"use_token_compression": True}, 18),
        ({}, 18),
    ],
)
def test_original_config_decides_whether_clips_are_pruned(folder: Path, settings: dict[str, Any], kept: int) -> None:
    """Of 3 equal frames of 16 tokens the first remains, and one token of each other frame."""
    config = {"model_type": "videollama3_qwen2", **settings}
    _write(folder, config=config, preprocessor_config=ORIGINAL, processor_config={"fps": 1})
    processor = Processor.from_pretrained(folder)
    assert int(processor([STILL]).keep_mask.sum()) == kept
    assert (processor.config.pruning is None) == (kept == 48)


OTHER = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [1.0, 1.0, 1.0],
    "rescale_factor": 1 / 127.5,
    "resample": 2,
    "do_normalize": False,
    "do_rescale": False,
    "do_resize": False,
    "do_convert_rgb": False,
    "temporal_patch_size": 2,
}
LAYOUTS = {
    "preprocessor_config.json": lambda other: {"preprocessor_config": {**ORIGINAL, **other}},
    "video_preprocessor_config.json": lambda other: {
        "preprocessor_config": ORIGINAL,
        "video_preprocessor_config": other,
    },
    "processor_config.json": lambda other: {"processor_config": {"image_processor": other, "video_processor": {}}},
    "processor_config.json of videos": lambda other: {
        "processor_config": {"image_processor": {}, "video_processor": other}
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", OTHER)
def test_other_pixels_than_the_published_are_refused(folder: Path, key: str, layout: str) -> None:
    _write(folder, **LAYOUTS[layout]({key: OTHER[key]}))
    with pytest.raises(UserError) as raised:
        Processor.from_pretrained(folder)
    assert str(raised.value).startswith(f"{folder / layout.split()[0]}: {key} {OTHER[key]}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "same", [{}, {"image_mean": 0.5, "image_std": HALF}, {"rescale_factor": 0.0039215686}, {"do_resize": None}]
)
def test_published_pixels_are_accepted_however_written(folder: Path, same: dict[str, Any], layout: str) -> None:
    _write(folder, **LAYOUTS[layout](same))
    assert Processor.from_pretrained(folder).config.patch_size == 14


def test_limits_in_pixels_replace_transformers_sizes(folder: Path) -> None:
    """As in transformers, which keeps the older names."""
    from transformers import VideoLlama3ImageProcessor

    image = {"min_pixels": 196 * 20, "max_pixels": 196 * 70, "size": {"shortest_edge": 196, "longest_edge": 392}}
    _write(folder, processor_config={"image_processor": image, "video_processor": {"max_pixels": 784 * 30}})
    config = Processor.from_pretrained(folder).config
    assert config.image == TokenLimits(merge=1, min_tokens=20, max_tokens=70)
    assert config.video.max_tokens == 30
    theirs = VideoLlama3ImageProcessor(**image).size
    assert (theirs["shortest_edge"], theirs["longest_edge"]) == (196 * 20, 196 * 70)


@pytest.mark.parametrize(
    ("files", "sampling"),
    [
        ({}, "exact"),
        ({"config": {"model_type": "qwen2"}}, "exact"),
        ({"vl3syn_processor": {}}, "exact"),
        ({"vl3syn_processor": {"sampling": "original"}, "preprocessor_config": ORIGINAL}, "original"),
        ({"vl3syn_processor": {"sampling": "exact"}, "preprocessor_config": ORIGINAL}, "exact"),
        ({"preprocessor_config": ORIGINAL}, "original"),
        ({"processor_config": {"fps": 1, "max_frames": 128}}, "original"),
        ({"processor_config": {"image_processor": {}, "video_processor": {}}}, "original"),
        ({"preprocessor_config": {}, "video_preprocessor_config": {"fps": 1}}, "original"),
    ],
    ids=["tokenizer", "language model", "earlier training", "ours", "ours beside theirs", "original", "original alone",
         "transformers", "transformers 4"],
)  # fmt: skip
def test_published_weights_are_given_the_frames_they_learned(
    folder: Path, files: dict[str, dict[str, Any]], sampling: str
) -> None:
    _write(folder, **files)
    assert Processor.from_pretrained(folder).config.sampling == sampling


@pytest.mark.parametrize("sampling", ["exact", "original"])
def test_sampling_is_saved_and_transformers_opens_the_folder(folder: Path, sampling: Any) -> None:
    from transformers import VideoLlama3Processor

    Processor(byte_tokenizer(), ProcessorConfig(sampling=sampling)).save_pretrained(folder)
    assert Processor.from_pretrained(folder).config.sampling == sampling
    VideoLlama3Processor.from_pretrained(folder)


@pytest.mark.parametrize(("sampling", "picked"), [("exact", [0, 10, 20]), ("original", [9, 19])])
def test_sampling_decides_which_frames_are_read(tmp_path: Path, sampling: Any, picked: list[int]) -> None:
    """Of 2.9 s at 10 frames per second."""
    film = clips.write(tmp_path / "film.mp4", [k / 10 for k in range(29)], size=(56, 56))
    processor = Processor(byte_tokenizer(), ProcessorConfig(sampling=sampling))
    row = processor([{"role": "user", "content": [{"type": "video", "video": str(film)}]}])
    corners = row["pixel_values"].view(len(picked), -1)[:, -588:].mean(1)  # the frame's shade, twice its number
    assert [round(((corner + 1) * 127.5 + 0.5) / 2) for corner in corners.tolist()] == picked
    assert "".join(f",Time {k}.0s:" for k in range(len(picked)))[1:] in processor.decode(row["input_ids"])


def test_unknown_sampling_is_refused(folder: Path) -> None:
    _write(folder, vl3syn_processor={"sampling": "middle"})
    with pytest.raises(UserError, match=r"vl3syn_processor\.json: .*sampling"):
        Processor.from_pretrained(folder)
