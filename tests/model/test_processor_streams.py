"""A film that is shown piece by piece: one choice of frames, one size, one pass of pruning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core import videos
from core.errors import BadSampleError
from model import Processor
from model.processor_config import ProcessorConfig
from tests.model.clips import write

ANSWER = {"role": "assistant", "content": "Yes."}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """8 s at 10 frames per second. A frame differs from the one before it in its lower right corner only."""
    return str(write(tmp_path_factory.mktemp("film") / "film.mp4", [k / 10 for k in range(80)]))


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


def part(film: Any, until: float | None = None, **options: Any) -> dict[str, Any]:
    return {"type": "video", "video": film, **({} if until is None else {"until": until}), **options}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def times_in(processor: Processor, row: Any) -> list[str]:
    return re.findall(r"Time ([\d.]+)s", processor.decode(row["input_ids"]))


@pytest.mark.parametrize("sampling", ["exact", "original"])
def test_stream_has_the_frames_of_the_whole_film(film: str, sampling: Any) -> None:
    processor = Processor(Processor.tiny().tokenizer, ProcessorConfig(sampling=sampling, max_frames=9))
    pieces = [user(part(film, until, fps=3), f"<{until}>") for until in (0.5, 3.0, 8.0)]
    streamed, whole = processor(pieces), processor([user(part(film, fps=3))])
    assert torch.equal(streamed["pixel_values"], whole["pixel_values"])
    assert torch.equal(streamed["keep_mask"], whole["keep_mask"])
    assert times_in(processor, streamed) == times_in(processor, whole)
    assert streamed["grid_thw"][:, 0].sum() == whole["grid_thw"][0, 0] == 9
    assert (streamed["grid_thw"][:, 1:] == whole["grid_thw"][0, 1:]).all()


def test_still_stream_keeps_only_its_first_frame_whole(processor: Processor, tmp_path: Path) -> None:
    still = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    folder = tmp_path / "still"
    folder.mkdir()
    for number in range(9):
        Image.fromarray(still).save(folder / f"{number}.png")
    row = processor([user(part(str(folder), until), "?") for until in (0, 1, 2)])
    kept = row["keep_mask"].view(3, -1).sum(1).tolist()
    assert kept == [row["keep_mask"].numel() // 3, 1, 1]


def test_stream_is_decoded_once(processor: Processor, film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    real = videos.decode
    monkeypatch.setattr(videos, "decode", lambda video, keep: decoded.append(video) or real(video, keep))
    processor([user(part(film, until), "?") for until in (1, 2, 3)])
    (video,) = decoded
    assert video.times == (0, 1, 2, 3)


def test_part_of_a_stream_without_new_frames_is_left_out(processor: Processor, film: str) -> None:
    turns = [user(part(film, 1.0), "A"), ANSWER, user(part(film, 1.4)), ANSWER, user(part(film, 1.9), "B"), ANSWER]
    text = processor.tokenizer.decode(processor(turns, labels=True)["input_ids"]).replace("<|video_pad|>", "")
    question, answer = "<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\nYes.<|im_end|>\n"
    expected = question.format("Time 0.0s:,Time 1.0s:\nA") + answer * 2 + question.format("B") + answer
    assert text == expected
    assert processor([user(part(film, 0), "A"), user("")])["grid_thw"].tolist()[0][0] == 1


def test_times_of_a_stream_count_from_its_start(processor: Processor, film: str) -> None:
    row = processor([user(part(film, 4.0, start=2.5), "?"), user(part(film, 5.0, start=2.5), "?")])
    assert times_in(processor, row) == ["0.0", "1.0", "2.0"]
    assert row["grid_thw"][:, 0].tolist() == [2, 1]


def test_two_streams_and_an_image_keep_their_places(processor: Processor, film: str, tmp_path: Path) -> None:
    other = str(write(tmp_path / "other.mp4", [k / 10 for k in range(50)], size=(96, 64)))
    image = {"type": "image", "image": str(tmp_path / "a.png")}
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    row = processor([user(part(film, 1), image, part(other, 0)), user(part(other, 2), part(film, 2), part(film))])
    alone = [processor([user(one)]) for one in (part(film), image, part(other))]
    shapes = [one["grid_thw"][0].tolist() for one in alone]
    expected = [
        [2, *shapes[0][1:]],
        shapes[1],
        [1, *shapes[2][1:]],
        [2, *shapes[2][1:]],
        [1, *shapes[0][1:]],
        shapes[0],
    ]
    assert row["grid_thw"].tolist() == expected
    assert torch.equal(row["pixel_values"][-len(alone[0]["pixel_values"]) :], alone[0]["pixel_values"])


@pytest.mark.parametrize("until", [-1, "soon", True, float("nan"), 99])
def test_invalid_until_is_refused(processor: Processor, film: str, until: Any) -> None:
    with pytest.raises(BadSampleError, match=r"film\.mp4: .*(give numbers|give times in seconds)"):
        processor([user(part(film, until))])
