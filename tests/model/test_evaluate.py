"""Loss and answers against transformers' class, metrics against numbers worked out by hand or published."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from PIL import Image

from model import Processor
from model.caption_metrics import CLIP_PREFIX, caption_metrics, clip_score
from model.evaluate import Answer, compute_loss, generate_answers
from model.packed_row import PackedRow
from model.training.data.samples import Sample
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


def test_identical_texts_have_full_marks() -> None:
    texts = ["A dog runs on the beach.", "4"]
    metrics = caption_metrics(texts, texts)
    assert (metrics.chrf, metrics.rouge_l, metrics.exact) == (pytest.approx(100), 1.0, 1.0)
    assert (metrics.count, metrics.rouge_l_count) == (2, 2)
    assert "nc:6|nw:0" in metrics.chrf_signature


def test_different_texts_have_zero_marks() -> None:
    metrics = caption_metrics(["xyz"], ["a dog"])
    assert (metrics.chrf, metrics.rouge_l, metrics.exact) == (0.0, 0.0, 0.0)


def test_chrf_of_a_known_pair_is_right() -> None:
    """Precision is 1; recall 2 of 3 letters, 1 of 2 pairs, mean 7/12; longer n-grams the text has none.

    F with recall counted twice: 5 * 7/12 / (4 + 7/12) = 7/11.
    """
    assert caption_metrics(["ab"], ["abc"]).chrf == pytest.approx(700 / 11)


def test_chrf_is_of_the_corpus_not_a_mean() -> None:
    """Counts are summed first. Letters: hits 2 + 0, given 2 + 1, wanted 3 + 1. Pairs: hits 1, given 1, wanted 2."""
    precision, recall = (2 / 3 + 1) / 2, (2 / 4 + 1 / 2) / 2
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    assert caption_metrics(["ab", "x"], ["abc", "y"]).chrf == pytest.approx(expected)


def test_rouge_l_equals_the_published_example() -> None:
    """Lin 2004, section 3.1: S2 and S3 against S1; here precision and recall are equal, so F1 is that number."""
    reference = "police killed the gunman"
    assert caption_metrics(["police kill the gunman"], [reference]).rouge_l == pytest.approx(3 / 4)
    assert caption_metrics(["the gunman kill police"], [reference]).rouge_l == pytest.approx(2 / 4)
    both = caption_metrics(["police kill the gunman", "the gunman kill police"], [reference] * 2)
    assert both.rouge_l == pytest.approx(5 / 8)


def test_rouge_l_is_f1_where_precision_and_recall_differ() -> None:
    """Three of three words against three of five: 2 * 1 * 0.6 / 1.6."""
    metrics = caption_metrics(["The cat sat!"], ["the cat sat down there"])
    assert metrics.rouge_l == pytest.approx(0.75)


def test_rouge_l_is_nan_for_texts_its_library_cannot_read() -> None:
    chinese = caption_metrics(["一只猫"], ["一只猫"])
    assert math.isnan(chinese.rouge_l)
    assert (chinese.rouge_l_count, chinese.chrf) == (0, pytest.approx(100))
    mixed = caption_metrics(["一只猫", "a cat"], ["一只猫", "a cat"])
    assert (mixed.rouge_l, mixed.rouge_l_count) == (1.0, 1)


def test_exact_match_ignores_case_and_space_only() -> None:
    metrics = caption_metrics([" yes\n", "RED  car", "4."], ["Yes", "red car", "4"])
    assert metrics.exact == pytest.approx(2 / 3)


def test_texts_and_references_must_come_in_pairs() -> None:
    for texts, references in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match=f"{len(texts)} texts for {len(references)} references"):
            caption_metrics(texts, references)


@pytest.mark.parametrize(
    ("image", "text", "score"),
    [([1, 0], [2, 0], 2.5), ([3, 4], [1, 0], 1.5), ([0, 1], [1, 0], 0.0), ([-1, 0], [1, 0], 0.0)],
    ids=["same direction", "cosine 0.6", "at right angles", "opposite"],
)
def test_clip_score_of_known_embeddings_is_right(image: list[float], text: list[float], score: float) -> None:
    calls: list[tuple[Any, str]] = []

    def encode(picture: Any, words: str) -> tuple[Any, Any]:
        calls.append((picture, words))
        return image, text

    assert clip_score(b"image", "A dog.", encode) == pytest.approx(score)
    assert calls == [(b"image", CLIP_PREFIX + "A dog.")]


def test_empty_caption_has_a_clip_score_of_zero() -> None:
    assert clip_score(b"image", " ", lambda image, text: ([1.0], [1.0])) == 0.0
