"""Answers about frames that were pushed one by one are those about the same frames as a film."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import BadSampleError, UserError
from model import Processor, VideoLLaMA3
from model.config import preset
from model.processor_config import ProcessorConfig, TokenLimits
from model.prune import Pruning
from model.stream import Stream
from tests.model.oracles import widen

CONFIG = ProcessorConfig(video=TokenLimits(merge=2, min_tokens=1))
DRIFT = CONFIG.model_copy(update={"pruning": Pruning(threshold=25, unit="grey", against="kept")})


def _frames(count: int, height: int = 56, width: int = 84) -> list[Any]:
    """A still noise in which one square of 28 x 28 pixels brightens."""
    still = np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)
    frames = [still.copy() for _ in range(count)]
    for number, frame in enumerate(frames):
        column = 28 * (number % 2)
        frame[:28, column : column + 28] = 10 * number + number**2
    return frames


FRAMES = _frames(9)


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    """It writes on and on: it knows no end token."""
    built = VideoLLaMA3(preset("tiny"))
    widen(built)
    built.language.generation_config.eos_token_id = None
    return built.eval()


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(Processor.tiny().tokenizer, CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The frames as files, one a second."""
    path = tmp_path_factory.mktemp("film")
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(path / f"{number}.png")
    return str(path)


def opened(model: VideoLLaMA3, processor: Processor, **settings: Any) -> Stream:
    return Stream(model, processor, max_new_tokens=12, **settings)


def show(stream: Stream, numbers: range, frames: list[Any] = FRAMES) -> None:
    for number in numbers:
        stream.push(frames[number], number)


def say(stream: Stream, question: str = "What?") -> str:
    return "".join(stream.ask(question))


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def part(folder: str, until: float, start: float = 0.0) -> dict[str, Any]:
    return {"type": "video", "video": folder, "frames_fps": 1, "fps": 1, "start": start, "until": until}


def answered(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def expected(model: VideoLLaMA3, processor: Processor, *messages: dict[str, Any]) -> str:
    """The answer that the whole conversation gets, computed at once."""
    (ids,) = model.generate(**processor(messages), max_new_tokens=12)
    return processor.decode(ids)


def film(model: VideoLLaMA3, processor: Processor, frames: list[Any]) -> str:
    """The answer to `What?` about the frames as a film."""
    return expected(model, processor, user({"type": "video", "video": np.stack(frames), "fps": 1}, "What?"))


def test_films_of_the_frames_get_different_answers(model: VideoLLaMA3, processor: Processor) -> None:
    """Else the other tests would show nothing."""
    answers = {film(model, processor, FRAMES[first:end]) for first in (0, 3, 4) for end in (5, 7, 9)}
    assert len(answers) == 9


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("picture", [np.asarray, Image.fromarray], ids=["array", "PIL"])
def test_answer_is_that_of_the_frames_as_a_film(
    model: VideoLLaMA3, processor: Processor, count: int, picture: Any
) -> None:
    stream = opened(model, processor)
    show(stream, range(count), [picture(frame) for frame in FRAMES])
    assert say(stream) == film(model, processor, FRAMES[:count])
    row = processor([user({"type": "video", "video": np.stack(FRAMES[:count]), "fps": 1}, "What?")])
    assert stream.stats is not None
    assert stream.stats.visual_tokens == len(row.keep_mask)
    assert stream.stats.kept_tokens == row.keep_mask.sum()
    assert stream.stats.prompt_tokens == len(row.input_ids)


def test_times_may_be_those_of_a_clock(model: VideoLLaMA3, processor: Processor) -> None:
    stream = opened(model, processor)
    for number in range(3):
        stream.push(FRAMES[number], 1_764_000_000.25 + number)
    assert say(stream) == film(model, processor, FRAMES[:3])


def test_questions_in_between_are_those_of_training(model: VideoLLaMA3, processor: Processor, folder: str) -> None:
    stream, talk = opened(model, processor, system="Be brief."), [{"role": "system", "content": "Be brief."}]
    shown = 0
    for question, end in (("Ready?", 0), ("What?", 3), ("And now?", 6), ("Sure?", 6), ("At last?", 9)):
        show(stream, range(shown, end))
        talk.append(user(part(folder, end - 1), question) if end else user(question))
        answer = say(stream, question)
        assert answer == expected(model, processor, *talk)
        talk.append(answered(answer))
        shown = end


def test_frames_and_tokens_are_read_once(model: VideoLLaMA3, processor: Processor) -> None:
    encoded, read = list[int](), list[int]()
    hooks = [
        model.vision.register_forward_hook(lambda _module, inputs, _output: encoded.append(len(inputs[0]))),
        model.language.model.register_forward_hook(
            lambda _module, _inputs, output: read.append(output.last_hidden_state.shape[1])
        ),
    ]
    stream = opened(model, processor)
    show(stream, range(6))
    before = sum(read)
    list(stream.ask("What?"))
    for hook in hooks:
        hook.remove()
    assert encoded == [24] * 6
    assert stream.stats is not None
    assert sum(read) == stream.stats.prompt_tokens + stream.stats.tokens - 1
    assert stream.stats.reused_tokens == before
    assert sum(read) - before < 60, "the question and the answer alone"


@pytest.mark.parametrize("config", [CONFIG, DRIFT], ids=["previous", "kept"])
@pytest.mark.parametrize(("leaving", "start"), [(1, 5), (2, 6), (4, 8)])
def test_answer_is_that_of_a_film_from_the_window(
    model: VideoLLaMA3, config: ProcessorConfig, leaving: int, start: int
) -> None:
    processor = Processor(Processor.tiny().tokenizer, config)
    stream = opened(model, processor, window=4, leaving=leaving)
    show(stream, range(9))
    assert stream.start == start
    assert say(stream) == film(model, processor, FRAMES[start:])


def test_questions_leave_with_their_frames(model: VideoLLaMA3, processor: Processor, folder: str) -> None:
    stream = opened(model, processor, window=4, leaving=2)
    show(stream, range(2))
    say(stream, "Gone with the first two?")
    show(stream, range(2, 4))
    kept = say(stream, "Stays?")
    show(stream, range(4, 6))
    assert stream.start == 2
    talk = [user(part(folder, 3, start=2), "Stays?"), answered(kept), user(part(folder, 5, start=2), "What?")]
    assert say(stream) == expected(model, processor, *talk)


def test_frames_have_the_size_of_a_full_window(model: VideoLLaMA3) -> None:
    limited = Processor(Processor.tiny().tokenizer, CONFIG.model_copy(update={"max_tokens": 24}))
    frames = _frames(6, 112, 168)
    stream = opened(model, limited, window=4, leaving=1)
    show(stream, range(4), frames)
    assert say(stream) == film(model, limited, frames[:4])
    assert stream.stats is not None
    assert stream.stats.visual_tokens == 24


def test_frames_during_an_answer_come_after_it(model: VideoLLaMA3, processor: Processor, folder: str) -> None:
    stream = opened(model, processor)
    show(stream, range(3))
    answer = stream.ask("What?")
    said = next(answer)
    show(stream, range(3, 6))
    with pytest.raises(UserError, match="an answer is in progress"):
        stream.ask("And?")
    said += "".join(answer)
    assert said == expected(model, processor, user(part(folder, 2), "What?"))
    talk = [user(part(folder, 2), "What?"), answered(said), user(part(folder, 5), "And?")]
    assert say(stream, "And?") == expected(model, processor, *talk)


def test_window_may_move_before_and_during_an_answer(model: VideoLLaMA3, processor: Processor) -> None:
    stream = opened(model, processor, window=3, leaving=3)
    show(stream, range(3))
    answer = stream.ask("What?")
    show(stream, range(3, 4))
    said = next(answer)
    show(stream, range(4, 7))
    assert said + "".join(answer) == film(model, processor, FRAMES[:3])
    assert say(stream) == film(model, processor, FRAMES[6:7]), "the question has left with its frames"


def test_closed_answer_is_remembered_as_it_was_heard(model: VideoLLaMA3, processor: Processor, folder: str) -> None:
    stream = opened(model, processor)
    show(stream, range(3))
    answer = stream.ask("What?")
    heard = next(answer) + next(answer)
    answer.close()
    show(stream, range(3, 5))
    talk = [user(part(folder, 2), "What?"), answered(heard), user(part(folder, 4), "And?")]
    assert say(stream, "And?") == expected(model, processor, *talk)


def test_error_of_the_model_leaves_nothing_half_read(model: VideoLLaMA3, processor: Processor) -> None:
    stream = opened(model, processor)
    show(stream, range(2))

    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    hook = model.language.model.layers[1].register_forward_hook(fail)  # the first layer has read the frame
    with pytest.raises(MemoryError, match="no room"):
        stream.push(FRAMES[2], 2)
    with pytest.raises(MemoryError, match="no room"):
        list(stream.ask("What?"))
    hook.remove()
    show(stream, range(3, 5))
    assert say(stream) == film(model, processor, FRAMES[:5])


@pytest.mark.parametrize(
    ("frame", "time", "message"),
    [
        (FRAMES[1], 1, "a frame at 1 s after one at 1 s: give times that increase"),
        (FRAMES[1], 0.5, "give times that increase"),
        (FRAMES[1], float("nan"), "time is nan: give seconds"),
        (FRAMES[1], 10**400, "give seconds, 0 to 1e"),
        (FRAMES[1], "2", "time is '2': give seconds"),
        (FRAMES[1], True, "time is True: give seconds"),
        (FRAMES[1][:28], 2, "a frame of 84 x 28 pixels after some of 84 x 56: resize it to these"),
        (FRAMES[1].astype(float), 2, "must be a PIL image or an array"),
        (FRAMES[1][..., 0], 2, "must be a PIL image or an array"),
        ("frame.png", 2, "must be a PIL image or an array"),
    ],
)
def test_bad_frame_is_refused_and_changes_nothing(
    model: VideoLLaMA3, processor: Processor, frame: Any, time: Any, message: str
) -> None:
    stream = opened(model, processor)
    show(stream, range(2))
    with pytest.raises(BadSampleError, match=message):
        stream.push(frame, time)
    show(stream, range(2, 4))
    assert say(stream) == film(model, processor, FRAMES[:4])


def test_first_frame_without_pixels_is_refused(model: VideoLLaMA3, processor: Processor) -> None:
    stream = opened(model, processor)
    with pytest.raises(BadSampleError, match="frame of 5 x 0 pixels"):
        stream.push(np.zeros((0, 5, 3), dtype=np.uint8), 0)
    show(stream, range(2))
    assert say(stream) == film(model, processor, FRAMES[:2])


@pytest.mark.parametrize("settings", [{"window": 0}, {"leaving": 0}, {"window": 4, "leaving": 5}])
def test_impossible_window_is_refused(model: VideoLLaMA3, processor: Processor, settings: Any) -> None:
    with pytest.raises(UserError, match="give 1 frame or more"):
        Stream(model, processor, **settings)


def test_window_beyond_the_budget_is_refused(model: VideoLLaMA3) -> None:
    small = Processor(Processor.tiny().tokenizer, ProcessorConfig(max_tokens=100))
    with pytest.raises(UserError, match="a window of 9 frames needs at least 180 tokens, the budget is 100"):
        show(opened(model, small, window=9), range(1))


def test_what_does_not_fit_the_model_is_refused(model: VideoLLaMA3, processor: Processor) -> None:
    stream = Stream(model, processor, max_new_tokens=100)
    show(stream, range(1))
    with pytest.raises(UserError, match="the model reads 32768: give a smaller window"):
        stream.ask("x" * 32_700)
    with pytest.raises(BadSampleError, match="not valid Unicode"):
        stream.ask("\ud83d")
    assert len("".join(stream.ask("What?"))) > 10
