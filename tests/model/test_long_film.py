"""Questions about films longer than the window: parts cover the film, and the answer is out of their captions."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.errors import UserError
from model import Processor, VideoLLaMA3
from model.chat import Chat
from model.config import preset
from model.long_film import DESCRIBE, LongFilm, parts
from tests.model.clips import write
from tests.model.oracles import widen


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A film of 12 s whose shade drifts."""
    return str(write(tmp_path_factory.mktemp("long") / "film.mp4", [k / 5 for k in range(60)]))


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    torch.manual_seed(0)
    built = VideoLLaMA3(preset("tiny"))
    widen(built)
    built.language.generation_config.eos_token_id = None
    return built.eval()


def long_film(model: VideoLLaMA3, film: str, seconds: float) -> LongFilm:
    processor = Processor.tiny()
    return LongFilm(lambda: Chat(model, processor, max_new_tokens=8), film, seconds)


@pytest.mark.parametrize(("seconds", "count"), [(4.0, 3), (5.0, 3), (100.0, 1), (2.0, 6)])
def test_parts_follow_one_another_to_the_end(film: str, seconds: float, count: int) -> None:
    cut = parts(film, seconds)
    assert len(cut) == count
    assert (cut[0][0], cut[-1][1]) == (0.0, 12.0)
    assert all(end - start <= seconds + 1e-9 for start, end in cut)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(cut))


def test_parts_shorter_than_two_seconds_are_refused(film: str) -> None:
    with pytest.raises(UserError, match="at least 2"):
        parts(film, 0.5)


def test_folder_of_frames_is_read_whole_at_its_own_rate(model: VideoLLaMA3, tmp_path: Path) -> None:
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(tmp_path / f"{number:02}.png")
    long = LongFilm(lambda: Chat(model, Processor.tiny(), max_new_tokens=2), str(tmp_path), 6.0, {"frames_fps": 1.0})
    assert [(note.start, note.end) for note in long.read()] == [(0.0, 6.0), (6.0, 12.0)]


def test_note_is_what_the_model_says_of_the_part_alone(model: VideoLLaMA3, film: str) -> None:
    long = long_film(model, film, 4.0)
    told = list(long.read())
    part = {"type": "video", "video": film, "start": 4.0, "end": 8.0}
    alone = "".join(Chat(model, Processor.tiny(), max_new_tokens=8).ask(DESCRIBE, [part]))
    assert (told[1].start, told[1].end, told[1].text) == (4.0, 8.0, alone)
    assert len({note.text for note in told}) > 1  # the parts differ, and so do their notes


def test_answer_is_of_the_notes_and_the_conversation_goes_on(model: VideoLLaMA3, film: str) -> None:
    long = long_film(model, film, 4.0)
    told = list(long.read())
    answer = "".join(long.ask("What happens?"))
    question = str(long.talk.conversation[0]["content"])
    assert all(str(note) in question for note in told)
    assert question.endswith("What happens?")
    assert answer == "".join(Chat(model, Processor.tiny(), max_new_tokens=8).ask(question))
    "".join(long.ask("And then?"))
    assert [message["content"] for message in long.talk.conversation][2] == "And then?"


def test_question_after_one_that_failed_has_the_notes(
    model: VideoLLaMA3, film: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    long = long_film(model, film, 4.0)
    told = list(long.read())
    with monkeypatch.context() as patched:
        patched.setattr(Chat, "ask", stopped)  # Ctrl-C before the answer begins
        with pytest.raises(KeyboardInterrupt):
            long.ask("What happens?")
    "".join(long.ask("Who is it?"))
    question = str(long.talk.conversation[0]["content"])
    assert all(str(note) in question for note in told)
