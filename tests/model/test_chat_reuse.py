"""What a conversation does not compute again. Its answers are those of the whole conversation, computed anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model import Processor, VideoLLaMA3, language
from model.chat import Chat
from model.config import preset
from model.media_cache import MediaCache
from model.processor_config import ProcessorConfig
from model.tokenizer import byte_tokenizer
from tests.model.clips import grey, write
from tests.model.oracles import widen

TOKENS = 12
PICTURE = {"type": "image", "image": Image.fromarray(grey(90))}
OTHER = {"type": "image", "image": Image.fromarray(grey(40, 84, 56))}


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    """It writes on and on: it knows no end token."""
    return _model()


def _model(**fields: Any) -> VideoLLaMA3:
    config = preset("tiny")
    built = VideoLLaMA3(config.model_copy(update={"language": {**config.language, **fields}}))
    widen(built)
    built.language.generation_config.eos_token_id = None
    return built.eval()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write(tmp_path_factory.mktemp("films") / "film.mp4", [k / 5 for k in range(20)])
    return {"type": "video", "video": str(path)}


def _ask(chat: Chat, text: str, *media: Any) -> str:
    """Answer, and compare with the answer to the same conversation as one prompt."""
    said = list(chat.conversation)
    answer = "".join(chat.ask(text, media))
    row = chat.processor([*said, {"role": "user", "content": [*media, text] if media else text}])
    (ids,) = VideoLLaMA3.generate(chat.model, **row, max_new_tokens=TOKENS)
    assert answer == chat.processor.decode(ids)
    assert chat.stats is not None
    assert chat.stats.prompt_tokens == len(row.input_ids)
    assert chat.stats.visual_tokens == len(row.keep_mask)
    return answer


def _chat(model: VideoLLaMA3, processor: Processor, cache: MediaCache | None = None) -> Chat:
    return Chat(model, processor, max_new_tokens=TOKENS, media_cache=cache or MediaCache())


def _reused(chat: Chat) -> int:
    assert chat.stats is not None
    return chat.stats.reused_tokens


def _prompt(chat: Chat) -> int:
    assert chat.stats is not None
    return chat.stats.prompt_tokens


@contextmanager
def _encoded(model: VideoLLaMA3) -> Iterator[list[int]]:
    """Collect the patches of each call of the encoder by `Chat`. `generate` for comparison is left out."""
    calls: list[int] = []

    def count(_module: Any, inputs: Any) -> None:
        if inputs[0].dtype == torch.uint8:  # the processor's own rows are normalised
            calls.append(len(inputs[0]))

    hook = model.vision.register_forward_pre_hook(count)
    yield calls
    hook.remove()


@pytest.mark.parametrize("kind", ["image", "film", "frames"])
def test_second_question_reads_its_own_tokens_only(
    model: VideoLLaMA3, processor: Processor, film: dict[str, Any], kind: str
) -> None:
    frames = {"type": "video", "video": [Image.fromarray(grey(level)) for level in (10, 90, 200)]}
    chat = _chat(model, processor)
    with _encoded(model) as calls:
        first = _ask(chat, "What?", {"image": PICTURE, "film": film, "frames": frames}[kind])
        assert (len(calls), _reused(chat)) == (1, 0)
        for question in ("Sure?", "Why?"):
            before = _prompt(chat)
            assert _ask(chat, question) != first
            assert before <= _reused(chat) < before + TOKENS, "the answer may be tokenised differently"
    assert len(calls) == 1


def test_new_image_is_encoded_alone(model: VideoLLaMA3, processor: Processor) -> None:
    chat = _chat(model, processor)
    with _encoded(model) as calls:
        _ask(chat, "What?", PICTURE)
        _ask(chat, "And this?", OTHER)
        assert _reused(chat) > 35
        _ask(chat, "Again?", PICTURE)
    assert calls == [35, 24], "the third is known"


def test_image_that_shrinks_earlier_ones_starts_anew(model: VideoLLaMA3) -> None:
    chat = _chat(model, Processor(byte_tokenizer(), ProcessorConfig(max_tokens=40)))
    with _encoded(model) as calls:
        _ask(chat, "What?", PICTURE)
        _ask(chat, "And this?", OTHER)
        assert _reused(chat) < 35
        _ask(chat, "Sure?")
    assert len(calls) == 2
    assert sum(calls[1:]) <= 40


@pytest.mark.parametrize("edited", [0, 1])
def test_edited_conversation_is_read_from_the_edit_on(model: VideoLLaMA3, processor: Processor, edited: int) -> None:
    chat = _chat(model, processor)
    _ask(chat, "What?", PICTURE)
    _ask(chat, "Sure?")
    before = _prompt(chat)
    chat.conversation[2 * edited] = {"role": "user", "content": [PICTURE, "Who?"] if edited == 0 else "Yes?"}
    with _encoded(model) as calls:
        _ask(chat, "Why?")
    assert calls == []
    assert 35 < _reused(chat) < before


@pytest.mark.parametrize("question", ["Why?", "Sure?"])
def test_conversation_cut_short_is_continued(model: VideoLLaMA3, processor: Processor, question: str) -> None:
    chat = _chat(model, processor)
    _ask(chat, "What?", PICTURE)
    _ask(chat, "Sure?")
    del chat.conversation[2:]
    _ask(chat, question)
    assert 35 < _reused(chat) < _prompt(chat)


def test_answer_is_not_read_again(processor: Processor) -> None:
    model = _model()
    # Only ASCII: half a character would not be tokenised as it was generated.
    model.language.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits[..., :94])
    chat = _chat(model, processor)
    _ask(chat, "What?", PICTURE)
    before = _prompt(chat)
    _ask(chat, "Sure?")
    assert _reused(chat) == before + TOKENS - 1, "nothing is predicted from the last token yet"


@pytest.mark.parametrize("pieces", [1, 3])
def test_answer_that_was_stopped_is_continued(model: VideoLLaMA3, processor: Processor, pieces: int) -> None:
    chat = Chat(model, processor, max_new_tokens=20_000)
    answer = chat.ask("What?", [PICTURE])
    for _ in range(pieces):
        next(answer)
    answer.close()
    before = _prompt(chat)
    chat.max_new_tokens = TOKENS
    with _encoded(model) as calls:
        _ask(chat, "Sure?")
    assert calls == []
    assert _reused(chat) >= before


def test_answer_with_an_end_token_is_continued(processor: Processor) -> None:
    model = _model()
    (ids,) = model.generate(**processor([{"role": "user", "content": [PICTURE, "What?"]}]), max_new_tokens=4)
    model.language.generation_config.eos_token_id = [int(ids[3])]
    chat = _chat(model, processor)
    _ask(chat, "What?", PICTURE)
    assert chat.stats is not None
    assert chat.stats.tokens <= 4
    before = _prompt(chat)
    _ask(chat, "Sure?")
    assert _reused(chat) >= before


def test_conversations_share_media_and_nothing_else(
    model: VideoLLaMA3, processor: Processor, film: dict[str, Any]
) -> None:
    cache = MediaCache()
    one, other = _chat(model, processor, cache), _chat(model, processor, cache)
    with _encoded(model) as calls:
        _ask(one, "What?", film, PICTURE)
        _ask(other, "Where?", PICTURE, film)
        assert _reused(other) < 35
        _ask(one, "Sure?")
        _ask(other, "Really?")
        assert _reused(other) > 35
    assert len(calls) == 1


def test_evicted_media_are_encoded_again(model: VideoLLaMA3, processor: Processor, film: dict[str, Any]) -> None:
    cache = MediaCache(max_bytes=35 * 64 * 4 + 1000)  # one image
    chat = _chat(model, processor, cache)
    with _encoded(model) as calls:
        _ask(chat, "What?", PICTURE)
        _ask(chat, "And this?", OTHER)
        _ask(chat, "And this?", film)
        assert len(calls) == 3
        _ask(chat, "Sure?")
        assert len(calls) == 3, "the language model has read them"
        chat.conversation[0] = {"role": "user", "content": ["Look:", PICTURE, "What?"]}
        _ask(chat, "Why?")
    assert len(calls) == 4


def test_pieces_of_a_stream_are_read_as_they_come(
    model: VideoLLaMA3, processor: Processor, film: dict[str, Any]
) -> None:
    chat = _chat(model, processor)
    with _encoded(model) as calls:
        _ask(chat, "Now?", {**film, "until": 1.0})
        _ask(chat, "Now?", {**film, "until": 1.0})  # no new frame
        _ask(chat, "And now?", {**film, "until": 3.0})
        assert _reused(chat) > 35
    assert len(calls) == 2


def test_template_may_rewrite_earlier_turns(model: VideoLLaMA3, processor: Processor) -> None:
    count = "{{- '%d messages' % messages|length -}}"
    counting = Processor(processor.tokenizer, chat_template=count + processor.chat_template)
    chat = _chat(model, counting)
    with _encoded(model) as calls:
        _ask(chat, "What?", PICTURE)
        _ask(chat, "Sure?")
        assert _reused(chat) == 0
    assert len(calls) == 1


def test_failed_answer_leaves_nothing_half_read(processor: Processor) -> None:
    model = _model()
    chat = _chat(model, processor)
    _ask(chat, "What?", PICTURE)

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    hook = model.language.model.layers[1].register_forward_pre_hook(fail)  # the first layer has read the question
    with pytest.raises(RuntimeError, match="out of memory"):
        list(chat.ask("Sure?"))
    hook.remove()
    _ask(chat, "Sure?")


def test_long_message_is_read_in_portions(
    model: VideoLLaMA3, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = _chat(model, processor)
    _ask(chat, "What?", PICTURE)
    monkeypatch.setattr(language, "PORTION", 16)
    lengths: list[int] = []
    hook = model.language.model.layers[0].register_forward_pre_hook(
        lambda _module, inputs: lengths.append(inputs[0].shape[1])
    )
    _ask(chat, "And this one, and the one before?", OTHER)
    hook.remove()
    assert lengths.count(16) > 3


def test_other_files_and_options_are_other_media(
    model: VideoLLaMA3, processor: Processor, film: dict[str, Any], tmp_path: Path
) -> None:
    cache = MediaCache()
    copy = {**film, "video": str(tmp_path / "copy.mp4")}
    Path(copy["video"]).write_bytes(Path(film["video"]).read_bytes())
    with _encoded(model) as calls:
        for part in (film, copy, {**film, "fps": 2.0}, {**film, "start": 1.0}, {**film, "max_frames": 2}):
            _ask(_chat(model, processor, cache), "What?", part)
        assert len(calls) == 4, "a copy is the same film"
        write(Path(copy["video"]), [k / 5 for k in range(15)])
        _ask(_chat(model, processor, cache), "What?", copy)
    assert len(calls) == 5
