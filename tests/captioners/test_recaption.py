"""Captions by a chat model in this process: a small InternVL of transformers' own classes, on a CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captioners.engines import transformers
from captioners.engines.base import Answer, Engine, Question
from captioners.engines.lmdeploy import Lmdeploy
from captioners.engines.transformers import _collate, _conversation
from captioners.prompts import choose, prompt_hash
from captioners.recaption import Captioner, DetailedCaption, ShortCaption
from tests.pipeline.execution.pipelines import compute_images

TRANSFORMERS = {"kind": "transformers", "precision": "float32"}


@pytest.fixture(scope="module")
def pictures(photographs: list[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in photographs[:5]]


@pytest.fixture(scope="module")
def captioner(tiny_internvl: Path) -> Captioner:
    return ShortCaption(model=str(tiny_internvl), engine=TRANSFORMERS, max_new_tokens=12).load()  # type: ignore[arg-type]


def rows(captioner: Captioner, pictures: list[Image.Image]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = captioner([captioner.prepare(p, n) for n, p in enumerate(pictures)]).to_pylist()
    return result


def test_batch_gets_the_captions_of_its_images_alone(captioner: Captioner, pictures: list[Image.Image]) -> None:
    together = rows(captioner, pictures)
    alone = [captioner([captioner.prepare(p, n)]).to_pylist()[0] for n, p in enumerate(pictures)]
    assert together == alone
    assert len({row["short_caption"] for row in together}) == len(pictures)


def test_captions_equal_those_of_transformers(
    captioner: Captioner, pictures: list[Image.Image], tiny_internvl: Path
) -> None:
    from transformers import AutoProcessor, InternVLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(tiny_internvl)
    model = InternVLForConditionalGeneration.from_pretrained(tiny_internvl).eval()
    for number, row in enumerate(rows(captioner, pictures)):
        prompt = choose(ShortCaption().prompts, number)
        content = [{"type": "image", "image": pictures[number]}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=[pictures[number]], text=[text], return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert row["short_caption"] == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert row["short_prompt_tokens"] == inputs["input_ids"].shape[1]
        assert row["short_prompt"] == prompt_hash(prompt)
        assert (row["short_cut"], row["short_tokens"]) == (1, 12)


def test_question_the_processor_refuses_is_an_error_of_its_row(
    captioner: Captioner, pictures: list[Image.Image]
) -> None:
    """It counts the marks of images: one more in the prompt is an image that is not there."""
    inputs = [captioner.prepare(picture, number) for number, picture in enumerate(pictures[:3])]
    odd = captioner._engine.prepare(Question(pictures[1], "<IMG_CONTEXT> What is this?"))
    first, second, third = captioner([inputs[0], inputs[1]._replace(question=odd), inputs[2]]).to_pylist()
    assert [first, third] == captioner([inputs[0], inputs[2]]).to_pylist()
    assert second["short_caption"] is None
    assert second["error"].startswith("the model's processor refuses it: ")
    assert not second["retry"]


def test_images_are_prepared_in_the_threads_that_decode(
    captioner: Captioner, tiny_internvl: Path, pictures: list[Image.Image], tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "pool").mkdir()
    names = [f"{number}.png" for number in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        picture.save(tmp_path / "pool" / name)
    threads: list[tuple[str, str]] = []

    def noted(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def in_a_thread(*arguments: Any, **named: Any) -> Any:
            threads.append((name, threading.current_thread().name.split("_")[0]))
            return call(*arguments, **named)

        monkeypatch.setattr(owner, name, in_a_thread)

    engine: Any = captioner._engine
    noted(engine._processor, "apply_chat_template")
    noted(engine._network, "generate")
    stage = ShortCaption(model=str(tiny_internvl), engine=TRANSFORMERS, max_new_tokens=12)  # type: ignore[arg-type]
    found = compute_images(tmp_path, stage, captioner, names, batch_size=2).to_pylist()
    assert set(threads) == {("apply_chat_template", "decode"), ("generate", "model")}
    expected = rows(captioner, pictures)
    assert [row["short_caption"] for row in found] == [row["short_caption"] for row in expected]


def test_collate_equals_the_batch_of_the_processor(captioner: Captioner, pictures: list[Image.Image]) -> None:
    """Photographs of other shapes have other numbers of tiles, and prompts other lengths."""
    engine: Any = captioner._engine
    questions = [Question(picture, "What is this? " * number) for number, picture in enumerate(pictures, start=1)]
    ours = _collate([engine.prepare(question) for question in questions], engine._pad)
    engine._processor.tokenizer.padding_side = "left"
    theirs = engine._processor.apply_chat_template(
        [_conversation(question) for question in questions],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert theirs["attention_mask"].min() == 0, "something was padded"
    assert len({len(engine.prepare(question)["pixel_values"]) for question in questions}) > 1


def test_questions_of_other_shapes_are_batches_of_their_own(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some processors give each image its own size; such pixels cannot be in one tensor."""
    engine: Any = captioner._engine
    asked: list[list[int]] = []

    def generate(inputs: Any) -> torch.Tensor:
        asked.append(inputs["attention_mask"].sum(1).tolist())
        tokens: torch.Tensor = inputs["input_ids"][:, -2:]
        return tokens

    monkeypatch.setattr(engine, "_generate", generate)
    prepared = [engine.prepare(Question(Image.new("RGB", (60, 60)), "and " * number)) for number in (1, 2, 3)]
    lengths = [inputs["input_ids"].shape[1] for inputs in prepared]
    prepared[1] |= {"pixel_values": prepared[1]["pixel_values"][..., :28]}
    answers = engine([prepared[0], Answer(error="no"), *prepared[1:]])
    assert asked == [[lengths[0], lengths[2]], [lengths[1]]]
    assert [answer.prompt_tokens for answer in answers] == [lengths[0], None, *lengths[1:]]
    assert answers[1] == Answer(error="no")


def test_empty_caption_is_a_row_with_a_reason(tiny_internvl: Path, tmp_path: Path) -> None:
    """The model is made to end: its last layer says nothing but the end."""
    from transformers import InternVLForConditionalGeneration

    shutil.copytree(tiny_internvl, tmp_path / "m")
    model = InternVLForConditionalGeneration.from_pretrained(tiny_internvl)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[model.generation_config.eos_token_id] = 1
        model.model.language_model.norm.weight.abs_()
    model.save_pretrained(tmp_path / "m")
    mute = DetailedCaption(model=str(tmp_path / "m"), engine=TRANSFORMERS, max_new_tokens=5).load()  # type: ignore[arg-type]
    row = mute([mute.prepare(Image.new("RGB", (60, 60)), 0)]).to_pylist()[0]
    assert (row["detailed_caption"], row["detailed_tokens"]) == (None, 0)
    assert row["error"] == "empty caption: the model ended it before its first word"


def test_float_type_is_chosen_by_the_language_model(tiny_internvl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def chosen(model_type: str, precision: str) -> tuple[torch.device, torch.dtype]:
        asked.append(model_type)
        return torch.device("cpu"), torch.bfloat16

    monkeypatch.setattr(transformers, "device_and_dtype", chosen)
    half = ShortCaption(model=str(tiny_internvl), engine=TRANSFORMERS, max_new_tokens=4).load()  # type: ignore[arg-type]
    assert asked == ["qwen2"]
    question = half.prepare(Image.new("RGB", (60, 60)), 0).question
    assert question["pixel_values"].dtype == torch.bfloat16, "threads cast, not the model's thread"
    assert question["input_ids"].dtype == torch.int64


def test_only_large_images_are_scaled_down(tiny_internvl: Path) -> None:
    small = Captioner(ShortCaption(model=str(tiny_internvl), longest=100), Engine())
    assert small.prepare(Image.new("RGB", (400, 200)), 0).question.image.size == (100, 50)
    assert small.prepare(Image.new("RGB", (90, 50)), 0).question.image.size == (90, 50)


def test_model_without_a_chat_template_is_refused_in_one_line(tiny_blip: Path) -> None:
    with pytest.raises(ValueError, match="it is no chat model"):
        ShortCaption(model=str(tiny_blip), engine=TRANSFORMERS).load()  # type: ignore[arg-type]


def test_missing_weights_are_refused_not_initialised(tiny_internvl: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_internvl, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="weights are missing, such as"):
        ShortCaption(model=str(tmp_path / "m"), engine=TRANSFORMERS).load()  # type: ignore[arg-type]


def test_missing_model_is_refused_before_the_run_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a model folder"):
        ShortCaption(model=str(tmp_path), engine=TRANSFORMERS).check_available()  # type: ignore[arg-type]


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a driver here")
def test_lmdeploy_without_a_gpu_is_refused_in_one_line(tiny_internvl: Path) -> None:
    with pytest.raises(ValueError, match="lmdeploy needs an NVIDIA GPU, and there is no driver here"):
        ShortCaption(model=str(tiny_internvl)).load()


def test_calls_of_lmdeploy_match_its_signatures() -> None:
    """Runs where lmdeploy is, with its interpreter: it does not go into one environment with this project's torch."""
    python = os.environ.get("VL3SYN_LMDEPLOY_PYTHON")
    if not python:
        pytest.skip("VL3SYN_LMDEPLOY_PYTHON names no interpreter that has lmdeploy")
    script = Path(__file__).with_name("engines") / "lmdeploy_signatures.py"
    done = subprocess.run([python, script], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["checked"] >= 6


@pytest.mark.gpu
def test_lmdeploy_captions_on_a_gpu(tiny_internvl: Path, pictures: list[Image.Image]) -> None:
    pytest.importorskip("lmdeploy")
    assert Lmdeploy().gpus == 1
    captioner = DetailedCaption(model=str(tiny_internvl), max_new_tokens=8).load()
    result = captioner([captioner.prepare(p, n) for n, p in enumerate(pictures)]).to_pylist()
    assert all(row["detailed_caption"] and row["detailed_tokens"] <= 8 for row in result)


@pytest.mark.gpu
def test_transformers_captions_on_a_gpu_are_words(tiny_internvl: Path, pictures: list[Image.Image]) -> None:
    captioner = ShortCaption(model=str(tiny_internvl), engine=TRANSFORMERS, max_new_tokens=8).load()  # type: ignore[arg-type]
    assert captioner.provenance["dtype"] in ("bfloat16", "float16")
    assert all(row["short_caption"] for row in rows(captioner, pictures))
