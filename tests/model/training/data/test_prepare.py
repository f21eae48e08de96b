"""What is too long for a row is divided between turns, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import Processor
from model.processor_config import ProcessorConfig
from model.training.data.conversations import split, streaming
from model.training.data.prepare import for_stage, prepare
from model.training.data.samples import Sample
from model.training.stage import Stage
from tests.model import clips
from tests.model.training import training_data

Turn = dict[str, Any]


def image(number: int) -> Turn:
    return {"type": "image", "image": number}


conversations = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=12)


def built(turns: Sequence[tuple[int, int, int]], system: bool) -> Sample:
    """Of each turn: images, letters of the question, letters of the answer; letters tell the turn."""
    messages: list[Turn] = [{"role": "system", "content": "s" * 4}] if system else []
    count = 0
    for number, (images, question, answer) in enumerate(turns):
        parts = [image(count + k) for k in range(images)]
        count += images
        letter = chr(ord("A") + number)
        messages.append({"role": "user", "content": [*parts, letter * question] if images else letter * question})
        messages.append({"role": "assistant", "content": letter.lower() * answer})
    return Sample("s", messages)


def parts_of(message: Any) -> list[Any]:
    content = message["content"]
    return [content] if isinstance(content, str) else list(content)


def length(sample: Sample) -> int:
    """Letters, and 10 for each image."""
    return sum(len(p) if isinstance(p, str) else 10 for message in sample.conversation for p in parts_of(message))


@given(conversations, st.booleans(), st.integers(10, 120))
def test_pieces_have_every_turn_once_with_its_earlier_media(
    turns: list[tuple[int, int, int]], system: bool, room: int
) -> None:
    whole = built(turns, system)
    head = 4 * system
    seen = [sum(images for images, _, _ in turns[: n + 1]) * 10 for n in range(len(turns))]
    alone = [head + seen[n] + question + answer for n, (_, question, answer) in enumerate(turns)]
    if max(alone) > room:
        with pytest.raises(ValueError, match=rf"s: turn \d+ of {len(turns)} is too long for a row"):
            split(whole, lambda piece: length(piece) <= room)
        return
    pieces = split(whole, lambda piece: length(piece) <= room)
    assert [piece.name for piece in pieces] == [f"s part {n + 1}/{len(pieces)}" for n in range(len(pieces))]
    spoken: list[tuple[str, Any]] = []
    for number, piece in enumerate(pieces):
        assert length(piece) <= room
        messages = list(piece.conversation)
        if system:
            assert messages.pop(0) == whole.conversation[0]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        media = [part for message in messages for part in parts_of(message) if not isinstance(part, str)]
        before = len(spoken) + len(messages)
        assert media == [image(k) for k in range(sum(images for images, _, _ in turns[: before // 2]))]
        spoken += [("".join(p for p in parts_of(m) if isinstance(p, str)), m["role"]) for m in messages]
        if number + 1 < len(pieces):  # as many turns as fit: with the next one it would be too long
            _, question, answer = turns[len(spoken) // 2]
            following = turns[len(spoken) // 2][0] * 10 + question + answer
            assert length(piece) + following > room
    rest = whole.conversation[1:] if system else whole.conversation
    assert spoken == [("".join(p for p in parts_of(m) if isinstance(p, str)), m["role"]) for m in rest]


def test_split_measures_few_candidates() -> None:
    whole = built([(0, 9, 1)] * 20 + [(0, 30, 30)], False)
    pieces = []

    def fits(piece: Sample) -> bool:
        pieces.append(piece)
        return length(piece) <= 100

    assert len(split(whole, fits)) == 3
    assert len(pieces) <= 3 * 6


def test_stream_is_split_between_comments_with_earlier_frames(tmp_path: Path) -> None:
    film = clips.write(tmp_path / "film.mp4", [k / 5 for k in range(40)], size=(28, 28))
    turns: list[Turn] = [{"role": "user", "content": "Tell me.", "time": 0}]
    turns += [{"role": "assistant", "content": f"{number} " * 40, "time": number} for number in range(1, 5)]
    processor = Processor.tiny()
    sample = Sample("stream", streaming(str(film), turns))
    (whole,) = prepare(processor, sample, 0, 4096, 10**6)
    pieces = prepare(processor, sample, 0, whole.tokens - 60, 10**6)
    assert len(pieces) == 2
    assert sum(piece.labelled for piece in pieces) == whole.labelled
    assert pieces[-1].inputs["grid_thw"].tolist() == whole.inputs["grid_thw"].tolist()
    for piece in pieces:
        for name in ("pixel_values", "keep_mask"):  # the same choice of frames, and the same pass of pruning
            assert torch.equal(piece.inputs[name], whole.inputs[name][: len(piece.inputs[name])])


@pytest.mark.parametrize(
    ("model", "stage", "sampling"),
    [("exact", {}, "exact"), ("original", {}, "original"), ("original", {"sampling": "exact"}, "exact")],
)
def test_stage_samples_as_its_model_unless_told_otherwise(
    tmp_path: Path, model: Any, stage: dict[str, Any], sampling: str
) -> None:
    """The trained model's configuration says what training used."""
    processor = Processor(Processor.tiny().tokenizer, ProcessorConfig(sampling=model))
    settings = {"name": "a", "learning_rates": {".*": 1e-3}, "mixture": {"qa": 1.0}, "steps": 1}
    trained = for_stage(processor, Stage(**settings, **stage))
    trained.save_pretrained(tmp_path)
    assert Processor.from_pretrained(tmp_path).config.sampling == sampling


def test_sample_that_cannot_be_split_is_named_with_its_turn() -> None:
    part = {"type": "image", "image": training_data.picture(1)}
    turns = [{"role": "user", "content": [part, "What?"]}, {"role": "assistant", "content": "It."}]
    with pytest.raises(ValueError, match=r"^s: turn 1 of 1 is too long for a row$"):
        prepare(Processor.tiny(), Sample("s", turns), 0, 20, 10**6)
    with pytest.raises(ValueError, match=r"^s: turn 1 of 1 is too long for a row$"):
        prepare(Processor.tiny(), Sample("s", turns), 0, 1000, 8)  # patches


def test_piece_has_all_questions_before_its_answers() -> None:
    speech = "ua uua uaa".replace(" ", "")
    roles = {"u": "user", "a": "assistant"}
    turns: list[Turn] = [{"role": roles[who], "content": who * 10} for who in speech]
    turns[2]["content"] = [image(0), "u" * 10]
    turns.insert(0, {"role": "assistant", "content": "a" * 10})
    pieces = split(Sample("s", turns), lambda piece: length(piece) <= 40)
    roles_of_pieces = ["".join(message["role"][0] for message in piece.conversation) for piece in pieces]
    assert roles_of_pieces == ["aua", "uua", "uaa"]
    assert [parts_of(piece.conversation[0])[0] for piece in pieces] == ["a" * 10, image(0), image(0)]
    with pytest.raises(ValueError, match="s: turn 3 of 4 is too long for a row"):
        split(Sample("s", turns), lambda piece: length(piece) <= 35)
