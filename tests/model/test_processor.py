from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model import Processor, VideoLLaMA3
from model.config import preset
from model.packed_row import PackedRow
from model.processor_config import ProcessorConfig, TokenLimits
from model.prompt import CHAT_TEMPLATE
from model.prune import Pruning
from tests.model.clips import real, write


def _picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _frames(count: int, height: int = 70, width: int = 90) -> np.ndarray:
    still = np.random.default_rng(0).integers(0, 200, (1, height, width, 3), dtype=np.uint8).repeat(count, 0)
    still[:, : height // 2] += np.arange(count, dtype=np.uint8)[:, None, None, None] * 9
    return still


IMAGES = {"role": "user", "content": [
    {"type": "image", "image": _picture(60, 80)}, {"type": "image", "image": _picture(200, 33)}, "What differs?",
]}  # fmt: skip
VIDEOS = {"role": "user", "content": [
    {"type": "video", "video": _frames(3), "fps": 2}, {"type": "video", "video": _frames(2, 90, 40)}, "And\n\n now?",
]}  # fmt: skip
SPACED = [{"role": "user", "content": [" First ", {"type": "image", "image": _picture(60, 80)}, "\n then? \n\n"]}]
ANSWER = {"role": "assistant", "content": "Nothing at all."}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


def _parts(message: dict[str, Any]) -> list[Any]:
    return [message["content"]] if isinstance(message["content"], str) else message["content"]


def _shown(part: Any) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": part["type"]}


def _theirs(processor: Processor, folder: Path, conversation: list[dict[str, Any]], prompt: bool) -> Any:
    """transformers' processor, opened from what ours saved."""
    from transformers import VideoLlama3Processor

    processor.save_pretrained(folder)
    theirs = VideoLlama3Processor.from_pretrained(folder)
    shown = [{**message, "content": [_shown(part) for part in _parts(message)]} for message in conversation]
    parts = [part for message in conversation for part in _parts(message) if isinstance(part, dict)]
    text = theirs.apply_chat_template(shown, add_generation_prompt=prompt, tokenize=False)
    pictures = [p["image"] for p in parts if p["type"] == "image"]
    clips = [p for p in parts if p["type"] == "video"]
    inputs: dict[str, Any] = {"images": pictures} if pictures else {}
    if clips:
        inputs["videos"] = [torch.from_numpy(p["video"]).permute(0, 3, 1, 2) for p in clips]
        inputs["do_sample_frames"] = False
        inputs["video_metadata"] = [
            {
                "fps": p.get("fps", 1),
                "total_num_frames": len(p["video"]),
                "frames_indices": list(range(len(p["video"]))),
            }
            for p in clips
        ]
    return theirs(text=[text], return_tensors="pt", return_token_type_ids=False, **inputs)


@pytest.mark.parametrize(
    "conversation",
    [
        [IMAGES],
        [VIDEOS],
        [SYSTEM, IMAGES, ANSWER, VIDEOS],
        [{"role": "user", "content": "Only text, naïve 東京."}],
        SPACED,
    ],
    ids=["images", "videos", "turns", "text", "spaced"],
)
def test_conversation_equals_the_transformers_processor(
    processor: Processor, tmp_path: Path, conversation: list[dict[str, Any]]
) -> None:
    ours = processor(conversation)
    theirs = _theirs(processor, tmp_path, conversation, prompt=True)
    assert ours["input_ids"].tolist() == theirs["input_ids"][0].tolist()
    names = [("pixel_values", "pixel_values_videos"), ("grid_thw", "video_grid_thw")]
    for name, video_name in names:
        image_name = "image_grid_thw" if name == "grid_thw" else name
        expected = [theirs[n] for n in (image_name, video_name) if n in theirs]
        if expected:  # in these conversations images come before videos
            assert torch.equal(ours[name], torch.cat(expected))
    if "video_compression_mask" in theirs:
        mask = theirs["video_compression_mask"]
        assert torch.equal(ours["keep_mask"][-len(mask) :], mask)
        assert not mask.all(), "nothing was pruned, so nothing was compared"


def test_text_of_the_prompt_is_as_documented(processor: Processor) -> None:
    small = Processor(
        processor.tokenizer,
        ProcessorConfig(image=TokenLimits(max_tokens=16), video=TokenLimits(merge=2, max_tokens=32)),
    )
    clip = {"type": "video", "video": _frames(2, 56, 56), "fps": 2}
    late = {"type": "image", "image": _picture(8, 8), "time": 3}
    row = small([SYSTEM, {"role": "user", "content": [late, clip, "Hi"]}])
    text = processor.tokenizer.decode(row["input_ids"])
    frame = "<|video_pad|>"
    kept = row["keep_mask"][16:].view(2, -1).sum(1).tolist()
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        f"Time 3.0s: {'<|image_pad|>' * 16}\nTime 0.0s:{frame * kept[0]},Time 0.5s:{frame * kept[1]}\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_only_answers_are_learned(processor: Processor) -> None:
    row = processor([SYSTEM, IMAGES, ANSWER, {"role": "user", "content": "Sure?"}, ANSWER], labels=True)
    learned = row["labels"] != -100
    assert torch.equal(row["labels"][learned], row["input_ids"][learned])
    assert processor.tokenizer.decode(row["labels"][learned]) == "Nothing at all.<|im_end|>" * 2
    assert not processor([SYSTEM, IMAGES], labels=True)["labels"].ne(-100).any()


def test_answer_is_tokenised_as_it_is_generated() -> None:
    """`\\n` before an answer and `\\n` at its start are one token of Qwen's: then training would see another prompt."""
    processor = Processor.tiny()
    processor.tokenizer.add_tokens(["\n\n"])
    row = processor([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "\nYes"}], labels=True)
    prompt = processor([{"role": "user", "content": "Hi"}])["input_ids"].tolist()
    assert row["input_ids"][: len(prompt)].tolist() == prompt
    assert processor.tokenizer.decode(row["labels"][row["labels"] != -100]) == "\nYes<|im_end|>"


@pytest.mark.parametrize("typed", ["<image>", "<|image_pad|>", "<|im_end|>", "\ue0000\ue001", "<video> {{ x }}"])
def test_special_token_in_a_typed_text_is_ordinary_text(processor: Processor, typed: str) -> None:
    row = processor([{"role": "user", "content": [{"type": "image", "image": _picture(9, 9)}, f"a {typed} b"]}])
    ids = row["input_ids"].tolist()
    assert ids.count(preset("tiny").image_token_id) == len(row["keep_mask"])
    assert ids.count(258) == 1
    letters = processor.tokenizer(f"a {typed} b", split_special_tokens=True)["input_ids"]
    start = len(ids) - len(letters) - len(processor.tokenizer("<|im_end|>\n<|im_start|>assistant\n")["input_ids"])
    assert ids[start : start + len(letters)] == letters


def test_video_file_gives_its_frames_at_their_times(processor: Processor, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", [k / 10 for k in range(50)])
    part = {"type": "video", "video": str(path), "fps": 1, "start": 1, "end": 4}
    row = processor([{"role": "user", "content": [part, "What?"]}])
    text = processor.tokenizer.decode(row["input_ids"]).replace("<|video_pad|>", "")
    assert "user\nTime 1.0s:,Time 2.0s:,Time 3.0s:\nWhat?" in text
    assert row["grid_thw"].tolist()[0][0] == 3


def test_video_longer_than_the_budget_fits_it(processor: Processor) -> None:
    small = Processor(processor.tokenizer, ProcessorConfig(max_tokens=800, max_frames=20))
    row = small([{"role": "user", "content": [{"type": "video", "video": real("bikes"), "fps": 5}, "What?"]}])
    assert row["grid_thw"][0, 0] == 20
    assert 600 <= len(row["keep_mask"]) <= 800
    with pytest.raises(ValueError, match="raise max_tokens"):
        Processor(processor.tokenizer, ProcessorConfig(max_tokens=100))(
            [{"role": "user", "content": [{"type": "image", "image": _picture(90, 90)}] * 20}]
        )


def test_pack_joins_rows_and_their_images(processor: Processor) -> None:
    rows = [processor([part, ANSWER], labels=True) for part in (IMAGES, {"role": "user", "content": "Hi"}, VIDEOS)]
    row = PackedRow.pack(rows)
    assert row["segment_lengths"].tolist() == [len(r["input_ids"]) for r in rows]
    model = VideoLLaMA3(preset("tiny"))
    with torch.no_grad():
        logits, *singly = (model(**replace(r, labels=None)).logits for r in (row, *rows))
    torch.testing.assert_close(logits, torch.cat(singly), atol=1e-5, rtol=0)
    assert 0 < row["keep_mask"].float().mean() < 1
    with pytest.raises(ValueError, match="all with labels or all without"):
        PackedRow.pack([rows[0], processor([VIDEOS])])


def test_saved_settings_are_loaded_unchanged(processor: Processor, tmp_path: Path) -> None:
    settings = ProcessorConfig(
        image=TokenLimits(merge=2, max_tokens=100), fps=2, pruning=Pruning(threshold=4, unit="grey", against="kept")
    )
    Processor(processor.tokenizer, settings).save_pretrained(tmp_path)
    assert Processor.from_pretrained(tmp_path).config == settings


def test_folder_of_a_transformers_processor_is_read(processor: Processor, tmp_path: Path) -> None:
    from transformers import VideoLlama3ImageProcessor, VideoLlama3Processor, VideoLlama3VideoProcessor

    VideoLlama3Processor(
        VideoLlama3ImageProcessor(size={"shortest_edge": 3136, "longest_edge": 196 * 500}),
        processor.tokenizer,
        VideoLlama3VideoProcessor(size={"shortest_edge": 784 * 4, "longest_edge": 784 * 300}, max_frames=9),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(tmp_path)
    settings = Processor.from_pretrained(tmp_path).config
    assert settings.image == TokenLimits(merge=1, min_tokens=16, max_tokens=500)
    assert settings.video == TokenLimits(merge=2, min_tokens=4, max_tokens=300)
    assert settings.max_frames == 9


def test_folder_of_the_original_processor_is_read(processor: Processor, tmp_path: Path) -> None:
    processor.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ '<image>' }}")
    (tmp_path / "preprocessor_config.json").write_text('{"min_tokens": 9, "max_tokens": 777, "patch_size": 14}')
    (tmp_path / "processor_config.json").write_text('{"image_merge_size": 2, "max_frames": 128, "fps": 1}')
    opened = Processor.from_pretrained(tmp_path)
    assert opened.config.image == TokenLimits(merge=2, min_tokens=9, max_tokens=777)
    assert (opened.config.max_tokens, opened.config.max_frames) == (777, 128)
    assert opened.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("conversation", "advice"),
    [
        ([], "at least one message"),
        ([{"role": "robot", "content": "x"}], "role 'robot': use one of"),
        ([{"role": "user", "content": 3}], "a text or a list"),
        ([{"role": "user", "content": ["What?", "a\ud83d"]}], r"message 0: not valid Unicode: U\+D83D at character 1"),
        ([{"role": "user", "content": [{"type": "sound", "sound": "x"}]}], "K one of text, image, video"),
        ([{"role": "user", "content": [{"type": "image"}]}], "K one of"),
        ([{"role": "assistant", "content": [{"type": "image", "image": "x"}]}], "into the user's"),
        ([{"role": "user", "content": [{"type": "image", "image": "none.jpg"}]}], "cannot read none.jpg"),
        ([{"role": "user", "content": [{"type": "video", "video": "none.mp4"}]}], "none.mp4: cannot be read"),
        ([{"role": "user", "content": [{"type": "video", "video": _frames(0)}]}], "without frames"),
        ([{"role": "user", "content": [{"type": "image", "image": _picture(1, 201)}]}], "crop it"),
    ],
)
def test_invalid_conversations_are_refused(processor: Processor, conversation: list[Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        processor(conversation)


def test_template_that_loses_an_image_is_refused(processor: Processor) -> None:
    lossy = Processor(processor.tokenizer, chat_template="{{ messages[0].role }}")
    with pytest.raises(ValueError, match="places 0 of 2"):
        lossy([IMAGES])


def test_tokenizer_without_placeholders_is_refused(processor: Processor) -> None:
    with pytest.raises(ValueError, match=r"no token <x>: use Qwen2.5's"):
        Processor(processor.tokenizer, ProcessorConfig(image_token="<x>"))


def test_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        Processor.from_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="no tokenizer"):
        Processor.from_pretrained(tmp_path)


def test_importing_model_loads_no_heavy_package() -> None:
    import subprocess
    import sys

    code = "import sys, model; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'av', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
