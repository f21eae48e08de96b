from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model import Processor, VideoLLaMA3
from model.chat import Chat
from model.config import preset
from tests.model.clips import grey
from tests.model.oracles import widen

PICTURE = {"type": "image", "image": Image.fromarray(grey(90))}
CLIP = {"type": "video", "video": torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 56, 84) * 40}


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    """It writes on and on: it knows no end token."""
    built = VideoLLaMA3(preset("tiny"))
    widen(built)
    built.language.generation_config.eos_token_id = None
    return built.eval()


class Speaker(VideoLLaMA3):
    """Says what it is told to, whatever it is asked."""

    def __init__(self, ids: list[int], then: Callable[[], None] = lambda: None) -> None:
        super().__init__(preset("tiny"))
        self.ids, self.then = ids, then

    def generate(self, *_: Any, streamer: Any = None, **__: Any) -> list[torch.Tensor]:
        for number in self.ids:
            streamer.put(torch.tensor([number]))
        self.then()
        streamer.end()
        return [torch.tensor(self.ids)]


@pytest.mark.parametrize("media", [[], [PICTURE], [PICTURE, CLIP]], ids=["text", "image", "image and video"])
def test_streamed_answer_equals_generate(model: VideoLLaMA3, processor: Processor, media: list[Any]) -> None:
    row = processor([{"role": "user", "content": [*media, "What?"]}])
    (ids,) = model.generate(**row, max_new_tokens=40)
    chat = Chat(model, processor, max_new_tokens=40)
    pieces = list(chat.ask("What?", media))
    assert "".join(pieces) == processor.decode(ids)
    assert len(pieces) > 5
    assert chat.stats is not None
    assert chat.stats.tokens == 40
    assert chat.stats.visual_tokens == len(row.get("keep_mask", ()))
    assert chat.stats.kept_tokens == sum(row.get("keep_mask", torch.zeros(0)))
    assert min(chat.stats.first_s, chat.stats.rest_s) > 0


def test_streamed_characters_are_whole(processor: Processor) -> None:
    text = "naïve 東京 👩‍👩‍👧 e\u0301 \ufffd end"
    ids = processor.tokenizer(text)["input_ids"]
    pieces = list(Chat(Speaker([*ids, 258]), processor).ask("?"))
    assert "".join(pieces) == text
    assert {"ï", "東", "京", "👩", "\u0301"} <= set(pieces)


_speaker = Speaker([])


@settings(max_examples=100)
@given(st.lists(st.one_of(st.integers(0, 263), st.sampled_from(list("é東👩".encode()))), max_size=30))
def test_any_bytes_stream_as_their_decoded_text(processor: Processor, ids: list[int]) -> None:
    _speaker.ids = ids
    assert "".join(Chat(_speaker, processor).ask("?")) == processor.decode(torch.tensor(ids, dtype=torch.long))


def test_next_question_includes_the_whole_conversation(model: VideoLLaMA3, processor: Processor) -> None:
    chat = Chat(model, processor, [{"role": "system", "content": "Be brief."}], max_new_tokens=10)
    first = "".join(chat.ask("What?", [PICTURE]))
    second = "".join(chat.ask("Sure?"))
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [PICTURE, "What?"]},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Sure?"},
    ]
    assert chat.conversation == [*said, {"role": "assistant", "content": second}]
    (ids,) = model.generate(**processor(said), max_new_tokens=10)
    assert processor.decode(ids) == second
    assert chat.stats is not None
    assert chat.stats.visual_tokens > 0, "the image is still there"


@pytest.mark.parametrize("how", ["close", "forget"])
def test_closed_stream_stops_the_answer(model: VideoLLaMA3, processor: Processor, how: str) -> None:
    before = threading.active_count()
    chat = Chat(model, processor, max_new_tokens=20_000)
    answer = chat.ask("What?", [PICTURE])
    heard = next(answer) + next(answer)
    if how == "close":
        answer.close()
    else:
        del answer
    assert threading.active_count() == before
    assert chat.stats is not None
    assert chat.stats.tokens < 20_000
    assert chat.conversation[-1] == {"role": "assistant", "content": heard}


def test_unread_answer_is_not_started(model: VideoLLaMA3, processor: Processor) -> None:
    before = threading.active_count()
    chat = Chat(model, processor, max_new_tokens=20_000)
    answer = chat.ask("What?")
    assert threading.active_count() == before
    answer.close()
    assert chat.conversation == []


def test_error_while_answering_is_raised_to_the_reader(processor: Processor) -> None:
    def fail() -> None:
        raise ValueError("out of words")

    before = threading.active_count()
    chat = Chat(Speaker([65, 66], fail), processor)
    answer = chat.ask("What?")
    assert [next(answer), next(answer)] == ["b", "c"]
    with pytest.raises(ValueError, match="out of words"):
        next(answer)
    assert threading.active_count() == before
    assert chat.conversation == []


def test_invalid_question_is_refused_at_once(model: VideoLLaMA3, processor: Processor) -> None:
    chat = Chat(model, processor, max_new_tokens=100)
    with pytest.raises(ValueError, match=r"cannot read none\.jpg"):
        chat.ask("What?", [{"type": "image", "image": "none.jpg"}])
    with pytest.raises(ValueError, match=r"the model reads 32768: begin a new conversation"):
        chat.ask("x" * 32_700)
    other = Processor.tiny()
    other.tokenizer.add_tokens([f"word{number}" for number in range(9)])
    with pytest.raises(ValueError, match=r"more than the model's 264 tokens"):
        Chat(model, other).ask("word8")
    assert chat.conversation == []


def test_temperature_draws_answers_by_the_seed(model: VideoLLaMA3, processor: Processor) -> None:
    said = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        said.append("".join(Chat(model, processor, max_new_tokens=12, temperature=2.0).ask("What?")))
    assert said[0] == said[1] != said[2]
