"""Keys of a line: what changes a sample and is not read is refused by name, what only describes it is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.training.lines import NONE, ONE, OURS, TEXT, THEIRS, answered, read, refused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_path", "a.png"),
        ("image_url", "http://x/a.png"),
        ("img", "a.png"),
        ("Image", "a.png"),
        ("imagePaths", ["a.png"]),
        ("imagefile", "a"),
        ("image_1", "a.png"),
        ("image_base64", "iVBOR"),
        ("image_files", ["a.png"]),
        ("image_info", [{"image_name": "a.png", "matched_text_index": 0}]),
        ("frames", ["1.png", "2.png"]),
        ("video_path", "clip.mp4"),
        ("media", [{"path": "a.png"}]),
        ("pixel_values", [[0.5]]),
        ("max_pixels", 100),
        ("video_id", "clip.mp4"),
        ("file_name", "a.png"),
        ("url", "http://x/a.jpg?size=2"),
    ],
)
def test_media_under_another_key_are_refused_by_name(media: Path, key: str, value: Any) -> None:
    reason = f"`{key}`: (media of this name|pixels) are not read"
    refused(media, {key: value, "conversations": TEXT}, reason)
    refused(media, {"conversations": [TEXT[0] | {key: value}, TEXT[1]]}, reason)


@pytest.mark.parametrize("key", ["image", "images", "video"])
def test_media_of_a_turn_are_refused_by_name(media: Path, key: str) -> None:
    refused(media, {"conversations": [TEXT[0] | {key: "a.png"}, TEXT[1]]}, f"`{key}`: media of this name")
    refused(media, {"image": "a.png", "messages": [TEXT[0] | {key: ["a.png"]}, TEXT[1]]}, f"`{key}`: media of")


@pytest.mark.parametrize("key", ["image2", "frames", "video_path", "left_image"])
def test_unread_media_beside_read_media_are_refused(media: Path, key: str) -> None:
    refused(media, {"image": "a.png", key: "b.png", "conversations": OURS}, f"`{key}`: media of this name")


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "000000033471", "width": 640, "height": 480},  # LLaVA, InternVL
        {"id": 7, "url": "http://x/a.jpg", "blip_caption": "a cat"},  # LLaVA-Pretrain
        {"id": "identity", "data_source": "ai2d(cauldron)", "metadata": {"image": "a.png"}},  # LLaVA-OneVision
        {"sample_id": 3, "metadata": {"dataset": "x", "split": "train"}, "choice_list": None},  # M4-Instruct
        {"source": "vqav2", "relevance_min": 4, "image_correspondence_ratings": [5]},  # FineVision
        {"image_id": "COCO_val2014_1.jpg", "image_size": [640, 480], "num_images": 1, "image_source": "coco"},
        {"image_url": "http://x/1.jpg", "image_path": "/mnt/photos/a.png", "image_caption": "a cat"},
        {"image_hash": "f00", "image_width": 640, "image_license": "CC0", "has_audio": False, "audio": None},
        {"video_length": 12.5, "video_fps": 30, "frame_count": 375, "num_frames": 64, "video_topic": "cooking"},
        {"split": "train", "label": "cat", "tools": "[]", "tool_calls": [], "rejected": None, "images": []},
        {"weight": 1, "loss_scale": "1.0", "kto_tag": True, "label": True, "is_rejected": False},
        {"reasoning_type": "spatial", "requires_reasoning": True, "reason": "clean", "annotation_tool": "cvat"},
        {
            "train_id": 5,
            "training_split": "b",
            "train_on_inputs": False,
            "image_name": "a",
            "max_pixels": None,
            "framework": "torch",
            "system_prompt": "",
        },
    ],
)
def test_keys_about_a_sample_are_ignored(media: Path, entry: dict[str, Any]) -> None:
    assert read(media, {"image": "a.png", "conversations": OURS, **entry}) == ONE


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "wgByO4Y_0", "model": "", "image_id": "000000033471", "num_images": 0},
        {"source": "sharegpt.jpg", "lang": "en", "video_id": "clip", "video_length": 0, "image_source": None},
        {"image_size": [640, 480], "frames": 64, "url": "https://x/y", "file": "part-1.jsonl", "multi_image": "no"},
    ],
)
def test_keys_about_a_text_are_ignored(media: Path, entry: dict[str, Any]) -> None:
    assert read(media, {"conversations": TEXT, **entry}) == NONE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", False),
        ("loss", "false"),
        ("loss_scale", 0),
        ("loss_scale", 0.3),
        ("weight", 0.5),
        ("weight", "0"),
        ("train", False),
        ("training", False),
        ("training_detail", [{"begin_offset": 0, "train": False}]),
        ("label", False),
        ("kto_tag", False),
        ("mask", True),
    ],
)
def test_answer_marked_as_not_learned_is_refused(media: Path, key: str, value: Any) -> None:
    reason = f"`{key}`: every answer is learned, all with weight 1"
    refused(media, answered(**{key: value}), reason)
    if key != "mask":  # beside the turns it is a mask of the image
        refused(media, answered() | {key: value}, reason)


def test_answer_marked_as_learned_is_read(media: Path) -> None:
    assert read(media, answered(loss=True, weight=1.0, train="true", loss_scale="1", mask=False, label=None)) == ONE


def test_question_marked_as_learned_is_refused(media: Path) -> None:
    for value in (True, 1, "true"):
        refused(media, {"messages": [TEXT[0] | {"train": value}, TEXT[1]]}, "`train`: only answers are learned")
    refused(media, {"messages": TEXT, "train_on_inputs": True}, "`train_on_inputs`: only answers are learned")
    assert read(media, {"messages": [TEXT[0] | {"train": False, "weight": 0, "loss": 0}, TEXT[1]]}) == NONE


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("rejected_messages", THEIRS, "what an assistant should not say"),
        ("rejected_images", ["a.png"], ""),
        ("tool_calls", [{"type": "function", "function": {"name": "f"}}], "calls of tools"),
        ("function_call", {"name": "f"}, "calls of tools"),
        ("reasoning_content", "Hm.", "thoughts are not read"),
        ("system_prompt", "Be brief.", "not read: name it `system`"),
    ],
)
def test_other_keys_that_change_a_sample_are_refused(media: Path, key: str, value: Any, reason: str) -> None:
    refused(media, answered(**{key: value}), f"`{key}`: {reason}")
    refused(media, answered() | {key: value}, f"`{key}`: {reason}")


def test_two_keys_of_one_value_are_refused_if_they_differ(media: Path) -> None:
    refused(media, answered(content="No."), "`value` and `content` of a turn are both given, and differ")
    refused(media, answered(role="user"), "`from` and `role` of a turn are both given, and differ")
    assert read(media, answered(role="assistant", content="It.")) == ONE
