"""The engine `transformers` with several images, and with none: a small InternVL of transformers' own classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captioners.engines.base import Engine, Frame, Question, Sampling
from captioners.engines.transformers import Transformers
from captioners.films.dense import DenseCaption
from tests.captioners.films.clips import clips, rows_of

GREEDY = Sampling(10, 0.0, 1.0, 0)


@pytest.fixture(scope="module")
def engine(tiny_internvl: Path) -> Engine:
    return Transformers(precision="float32").load(str(tiny_internvl), "test", None, GREEDY)


@pytest.fixture(scope="module")
def frames(photographs: list[Path]) -> tuple[Frame, ...]:
    images = [Image.open(path).convert("RGB").resize((70, 56)) for path in photographs[:4]]
    return tuple(Frame(1.5 * number, image) for number, image in enumerate(images))


def answered(engine: Engine, *questions: Question) -> list[str]:
    return [answer.text for answer in engine([engine.prepare(question) for question in questions])]


def test_answer_about_frames_equals_that_of_transformers(
    engine: Engine, frames: tuple[Frame, ...], tiny_internvl: Path
) -> None:
    from transformers import AutoProcessor, InternVLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(tiny_internvl)
    model = InternVLForConditionalGeneration.from_pretrained(tiny_internvl).eval()
    times = ("<0.0 seconds>", "<1.5 seconds>", "<3.0 seconds>", "<4.5 seconds>")
    said = "".join(f"{time}<IMG_CONTEXT>\n" for time in times)
    prompt = f"<|im_start|>user\n{said}What is it?<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(images=[frame.image for frame in frames], text=[prompt], return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    assert answered(engine, Question(None, "What is it?", frames)) == [expected]


def test_frames_images_and_texts_in_a_batch_are_as_alone(engine: Engine, frames: tuple[Frame, ...]) -> None:
    image = frames[0].image
    questions = [
        Question(None, "What is it?", frames),
        Question(image, "What is it?"),
        Question(None, "What is a dog?"),
        Question(None, "What is it?", frames[:2]),
    ]
    alone = [answered(engine, question)[0] for question in questions]
    assert answered(engine, *questions) == alone
    assert len(set(alone)) == 4, "each sees other images"


def test_order_of_frames_changes_the_question(engine: Engine, frames: tuple[Frame, ...]) -> None:
    turned = tuple(Frame(frame.time, other.image) for frame, other in zip(frames, reversed(frames), strict=True))
    first, second = (engine.prepare(Question(None, "?", order)) for order in (frames, turned))
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert not torch.equal(first["pixel_values"], second["pixel_values"])


def test_template_that_leaves_images_out_is_an_error(engine: Any, frames: tuple[Frame, ...]) -> None:
    template = engine._processor.chat_template
    engine._processor.chat_template = template.replace("<IMG_CONTEXT>", "")
    try:
        (answer,) = engine([engine.prepare(Question(None, "?", frames))])
    finally:
        engine._processor.chat_template = template
    assert answer.error is not None
    assert answer.error.startswith("the model's processor refuses it: ")


def test_processor_for_videos_only_is_refused_in_one_line(tiny_internvl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import InternVLProcessor

    given = InternVLProcessor.__setattr__

    def without_images(self: Any, name: str, value: Any) -> None:
        given(self, name, None if name == "image_processor" else value)

    monkeypatch.setattr(InternVLProcessor, "__setattr__", without_images)
    with pytest.raises(ValueError, match="its processor takes videos only; take a model that takes images"):
        Transformers().load(str(tiny_internvl), "test", None, GREEDY)


def test_dense_caption_by_a_model_that_writes_no_json(tmp_path: Path, tiny_internvl: Path) -> None:
    """The small model says words only: each clip ends with a reason, in the rows' own columns."""
    shutil.copytree(tiny_internvl, tmp_path / "m")
    engine = {"kind": "transformers", "precision": "float32"}
    stage = DenseCaption(model=str(tmp_path / "m"), engine=engine, max_new_tokens=8)  # type: ignore[arg-type]
    rows = rows_of(tmp_path, stage, clips(2))
    for row in rows:
        assert row["error"].startswith("no valid answer in two tries: cut off before its end; no JSON object in the")
        assert (row["dense_tries"], row["dense_tokens"], row["retry"]) == (2, 16, False)
