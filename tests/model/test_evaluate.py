"""Loss and answers against transformers' class."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from core.errors import UserError
from model import Processor
from model.answer_loss import compute_loss
from model.evaluate import Answer, evaluate, generate_answers
from model.packed_row import PackedRow
from model.training.data.annotations import AnnotationConfig
from model.training.data.samples import Sample
from model.training.data.source import Source, SourceConfig
from model.videollama3 import VideoLLaMA3
from tests.model.oracles import ours_of, whole_oracle


def _png(width: int, height: int, shade: int) -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).point(lambda v: v * shade // 255).convert("RGB").save(
        data, "PNG"
    )
    return data.getvalue()


def _asked(name: str, *media: dict[str, Any], question: str = "What is this?", answer: str = "A slope.") -> Sample:
    return Sample(name, [{"role": "user", "content": [*media, question]}, {"role": "assistant", "content": answer}])


def _image(shade: int, width: int = 70, height: int = 56) -> dict[str, Any]:
    return {"type": "image", "image": _png(width, height, shade)}


CLIP = {"type": "video", "video": [Image.new("RGB", (56, 56), (v, v, v)) for v in (10, 10, 200)], "fps": 1}
SAMPLES = [
    _asked("image", _image(200)),
    _asked("text", question="2 + 2?", answer="4"),
    Sample(
        "two turns",
        [
            {"role": "user", "content": [_image(120, 60, 90), _image(60), "Compare."]},
            {"role": "assistant", "content": "One is darker."},
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": "The second."},
        ],
    ),
    _asked("clip", CLIP, answer="It becomes light."),
]
BAD = [
    _asked("broken image", {"type": "image", "image": b"<html>404"}),
    Sample("nobody answers", [{"role": "user", "content": "Hello?"}]),
]


@pytest.fixture(scope="module")
def oracle() -> Any:
    return whole_oracle()


@pytest.fixture(scope="module")
def model(oracle: Any) -> VideoLLaMA3:
    return ours_of(oracle)


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


def _theirs(row: PackedRow) -> dict[str, torch.Tensor]:
    """A processor's output as transformers' class takes it; images and clips do not come together here."""
    inputs = {"input_ids": row["input_ids"][None]}
    if "pixel_values" not in row:
        return inputs
    if row["grid_thw"][0, 0] == 1:
        names = {"pixel_values": "pixel_values", "grid_thw": "image_grid_thw", "merge_sizes": "image_merge_sizes"}
    else:
        names = {
            "pixel_values": "pixel_values_videos",
            "grid_thw": "video_grid_thw",
            "merge_sizes": "video_merge_sizes",
            "keep_mask": "video_compression_mask",
        }
    return inputs | {theirs: row[ours] for ours, theirs in names.items()}


def test_loss_equals_that_of_transformers_on_the_same_tokens(
    oracle: Any, model: VideoLLaMA3, processor: Processor
) -> None:
    total, tokens = 0.0, 0
    for sample in SAMPLES:
        row = processor(sample.conversation, labels=True)
        count = int((row["labels"] != -100).sum())
        with torch.no_grad():
            mean = oracle(**_theirs(row), labels=row["labels"][None]).loss
        total, tokens = total + float(mean) * count, tokens + count
    loss = compute_loss(model, processor, SAMPLES)
    assert (loss.samples, loss.tokens, loss.skipped) == (4, tokens, [])
    assert loss.mean == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("tokens_per_row", [1, 60, 100_000])
def test_loss_does_not_depend_on_how_samples_are_packed(
    model: VideoLLaMA3, processor: Processor, tokens_per_row: int
) -> None:
    alone = [compute_loss(model, processor, [sample]) for sample in SAMPLES]
    assert len({round(loss.mean, 3) for loss in alone}) == len(SAMPLES)  # so that a mean of means would not pass
    packed = compute_loss(model, processor, SAMPLES, tokens_per_row)
    assert packed.tokens == sum(loss.tokens for loss in alone)
    assert packed.mean == pytest.approx(sum(loss.total for loss in alone) / packed.tokens, rel=1e-5)
    assert compute_loss(model, processor, SAMPLES, tokens_per_row) == packed


def test_packed_rows_stay_within_their_length(
    model: VideoLLaMA3, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [len(processor(sample.conversation)["input_ids"]) for sample in SAMPLES]
    rows: list[int] = []
    forward = model.forward

    def noting(*args: Any, **inputs: Any) -> Any:
        rows.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(model, "forward", noting)
    compute_loss(model, processor, SAMPLES, tokens_per_row=sizes[0] + sizes[1])
    assert rows[0] == sizes[0] + sizes[1]
    assert sum(rows) == sum(sizes)


def test_bad_samples_are_named_and_left_out_of_the_loss(model: VideoLLaMA3, processor: Processor) -> None:
    loss = compute_loss(model, processor, [BAD[0], SAMPLES[0], BAD[1], SAMPLES[1]])
    assert [line.split(":")[0] for line in loss.skipped] == ["broken image", "nobody answers"]
    assert all("\n" not in line for line in loss.skipped)
    good = compute_loss(model, processor, SAMPLES[:2])
    assert (loss.total, loss.tokens, loss.samples) == (good.total, good.tokens, 2)


def test_loss_without_a_good_sample_is_nan(model: VideoLLaMA3, processor: Processor) -> None:
    loss = compute_loss(model, processor, BAD)
    assert math.isnan(loss.mean)
    assert (loss.tokens, loss.samples, len(loss.skipped)) == (0, 0, 2)


def test_evaluation_leaves_the_mode_of_the_model(oracle: Any, processor: Processor) -> None:
    model = ours_of(oracle).train()
    model.vision.eval()  # as somebody may who has frozen it
    before = {name: module.training for name, module in model.named_modules()}
    compute_loss(model, processor, SAMPLES[:1])
    list(generate_answers(model, processor, SAMPLES[:1], 2))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_evaluation_draws_no_random_numbers(oracle: Any, processor: Processor) -> None:
    """Dropout is off, and the random numbers of a training go on as if nobody had looked."""
    model = ours_of(oracle).train()
    plain = compute_loss(model, processor, SAMPLES)
    model.projector.readout = torch.nn.Sequential(model.projector.readout, torch.nn.Dropout(0.5))
    model.train()
    state = torch.get_rng_state()
    assert compute_loss(model, processor, SAMPLES) == plain
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_equal_those_of_transformers(oracle: Any, model: VideoLLaMA3, processor: Processor, batch: int) -> None:
    answers = [a for a in generate_answers(model, processor, SAMPLES, 8, batch) if isinstance(a, Answer)]
    assert [a.sample for a in answers] == [s.name for s in SAMPLES]
    assert [a.reference for a in answers] == ["A slope.", "4", "The second.", "It becomes light."]
    assert [len(a.media) for a in answers] == [1, 0, 2, 1]
    for sample, answer in zip(SAMPLES, answers, strict=True):
        row = processor(sample.conversation[:-1], generation_prompt=True)
        with torch.no_grad():
            ids = oracle.generate(**_theirs(row), max_new_tokens=8, do_sample=False)[0, len(row["input_ids"]) :]
        assert answer.text == processor.decode(ids).strip(), sample.name


def test_answer_without_an_end_token_is_cut(oracle: Any, processor: Processor) -> None:
    """At the largest length an answer is cut, unless its last token ends it."""
    model = ours_of(oracle)
    model.language.generation_config.eos_token_id = None
    (long,) = generate_answers(model, processor, SAMPLES[:1], 3)
    row = processor(SAMPLES[0].conversation[:-1], generation_prompt=True)
    third = model.generate(**row, max_new_tokens=3)[0][2]
    model.language.generation_config.eos_token_id = int(third)
    (ended,) = generate_answers(model, processor, SAMPLES[:1], 3)
    assert isinstance(long, Answer)
    assert isinstance(ended, Answer)
    assert (long.cut, ended.cut) == (True, False)


def test_sample_without_an_answer_is_named(model: VideoLLaMA3, processor: Processor) -> None:
    silent = _asked("silent", answer=" ")
    answers = list(generate_answers(model, processor, [*BAD, silent, SAMPLES[0]], 4, batch=8))
    assert [line.split(":")[0] for line in answers if isinstance(line, str)] == [
        "broken image",
        "nobody answers",
        "silent",
    ]
    assert [a.sample for a in answers if isinstance(a, Answer)] == ["image"]


@pytest.fixture
def notes(tmp_path: Path, oracle: Any, processor: Processor) -> AnnotationConfig:
    """A checkpoint `ckpt`, and questions: three about an image each, one without, one about a file that is no image."""
    ours_of(oracle).save_pretrained(tmp_path / "ckpt")
    processor.save_pretrained(tmp_path / "ckpt")
    entries = []
    for number, shade in enumerate((40, 120, 200)):
        (tmp_path / f"{number}.png").write_bytes(_png(60 + 14 * number, 56, shade))
        turns = [
            {"from": "human", "value": "<image>What?"},
            {"from": "gpt", "value": f"Number {number}" + "!" * number},
        ]
        entries.append({"image": f"{number}.png", "conversations": turns})
    (tmp_path / "3.png").write_text("no image")
    turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
    entries += [{"conversations": turns}, {"image": "3.png", "conversations": entries[0]["conversations"]}]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return AnnotationConfig(annotations=str(tmp_path / "qa.jsonl"))


def test_shuffled_loss_is_that_of_samples_with_swapped_images(
    tmp_path: Path, notes: AnnotationConfig, model: VideoLLaMA3, processor: Processor
) -> None:
    """The last image cannot be read, so the third question has none to borrow; the text has no image."""
    result = evaluate(tmp_path / "ckpt", notes, max_new_tokens=0, shuffle_images=True)
    assert result.shuffled is not None

    def sample(number: int, image: int) -> Sample:
        part = {"type": "image", "image": (tmp_path / f"{image}.png").read_bytes()}
        return _asked(str(number), part, question="What?", answer=f"Number {number}{'!' * number}")

    plain, swapped = [sample(0, 0), sample(1, 1)], [sample(0, 1), sample(1, 2)]
    own, others = (compute_loss(model, processor, samples) for samples in (plain, swapped))
    assert (result.shuffled.samples, result.shuffled.tokens) == (2, own.tokens)
    assert result.shuffled.own == pytest.approx(own.mean, rel=1e-5)
    assert result.shuffled.mean == pytest.approx(others.mean, rel=1e-5)
    assert abs(own.mean - others.mean) > 1e-4
    assert result.loss.samples == 4
    assert evaluate(tmp_path / "ckpt", notes, max_new_tokens=0).shuffled is None


def test_shuffling_needs_two_samples_with_other_images(tmp_path: Path, notes: AnnotationConfig) -> None:
    with pytest.raises(ValueError, match="no two samples with as many images, and other ones: leave out --shuffle-im"):
        evaluate(tmp_path / "ckpt", notes, limit=1, max_new_tokens=0, shuffle_images=True)


def test_answer_has_the_loss_of_its_sample(
    tmp_path: Path, notes: AnnotationConfig, model: VideoLLaMA3, processor: Processor
) -> None:
    result = evaluate(tmp_path / "ckpt", notes, max_new_tokens=3, shuffle_images=True)
    source = notes.open("eval")
    alone = [compute_loss(model, processor, [source.sample(row)]) for row in range(4)]
    assert [answer.loss for answer in result.answers] == [pytest.approx(loss.mean, rel=1e-5) for loss in alone]
    assert result.loss.mean == pytest.approx(sum(loss.total for loss in alone) / sum(loss.tokens for loss in alone))
    assert [answer.shuffled_loss is None for answer in result.answers] == [False, False, True, True]


class _Twins(Source):
    """A source of one's own, two of whose samples have one name."""

    name, blocks = "twins", (3,)

    def sample(self, row: int) -> Sample:
        return _asked(("one", "other", "one")[row], answer=f"Number {row}")


class _TwinsConfig(SourceConfig):
    def open(self, name: str, blocks_in_memory: int = 8) -> Source:
        return _Twins()


def test_two_samples_of_one_name_are_refused(tmp_path: Path, notes: AnnotationConfig) -> None:
    """One would have the other's loss and score, and the mean would leave one out."""
    assert evaluate(tmp_path / "ckpt", _TwinsConfig(), limit=2, max_new_tokens=0).loss.samples == 2
    with pytest.raises(UserError, match=r"^two samples are named 'one': give each a name of its own$"):
        evaluate(tmp_path / "ckpt", _TwinsConfig(), max_new_tokens=0)
