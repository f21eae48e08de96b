from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.videollama3 import VideoLLaMA3
from tests.model.oracles import IMAGE, Sample, ours_of, packed, their_name, whole_oracle

SAMPLES = {
    "one image": Sample.of((1, 4, 6), seed=1),
    "images of several sizes": Sample.of((1, 4, 6), (1, 2, 2), (1, 8, 3), seed=2),
    "a video": Sample.of((3, 4, 6), seed=3),
    "a pruned video": Sample.of((4, 4, 6), seed=4, pruned=True),
    "two videos and an image": Sample.of((2, 4, 4), (1, 3, 5), (3, 2, 6), seed=5, pruned=True),
    "text": Sample.of(seed=6),
}


@pytest.fixture(scope="module")
def oracle() -> Any:
    return whole_oracle()


@pytest.fixture(scope="module")
def ours(oracle: Any) -> VideoLLaMA3:
    return ours_of(oracle)


def _labels(samples: list[Sample]) -> Tensor:
    """The second half of each sample is an answer; placeholders are none."""
    halves = [[i if n >= len(s.ids) // 2 and i < 256 else -100 for n, i in enumerate(s.ids)] for s in samples]
    return torch.tensor([label for half in halves for label in half])


@pytest.mark.parametrize("name", SAMPLES)
def test_logits_equal_transformers(oracle: Any, ours: VideoLLaMA3, name: str) -> None:
    sample = SAMPLES[name]
    with torch.no_grad():
        theirs = oracle(**sample.theirs()).logits[0]
        logits = ours(**packed(sample)).logits
    assert theirs.std(0).mean() > 0.1, "the weights are so small that everything would match"
    torch.testing.assert_close(logits, theirs, atol=2e-5, rtol=0)


def test_packed_row_of_mixed_media_equals_its_samples_singly(ours: VideoLLaMA3) -> None:
    samples = list(SAMPLES.values())
    with torch.no_grad():
        row = ours(**packed(*samples)).logits
        single = torch.cat([ours(**packed(sample)).logits for sample in samples])
    torch.testing.assert_close(row, single, atol=1e-5, rtol=0)


def test_sample_of_a_packed_row_does_not_affect_its_neighbour(ours: VideoLLaMA3) -> None:
    first, second, other = (Sample.of((1, 4, 4), seed=seed) for seed in (1, 2, 3))
    with torch.no_grad():
        a = ours(**packed(first, second)).logits[len(first.ids) :]
        b = ours(**packed(other, second)).logits[len(other.ids) :]
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_loss_and_gradients_equal_transformers(oracle: Any, ours: VideoLLaMA3) -> None:
    samples = list(SAMPLES.values())
    labels = _labels(samples)
    count = int((labels != -100).sum())
    oracle.zero_grad()
    for sample, part in zip(samples, labels.split([len(s.ids) for s in samples]), strict=True):
        oracle(**sample.theirs(), labels=part[None], num_items_in_batch=count).loss.backward()
    ours.zero_grad()
    out = ours(**packed(*samples), labels=labels)
    out.loss.backward()
    theirs = dict(oracle.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs[their_name(name)].grad
        if not name.endswith("k_proj.bias"):  # softmax does not see it: its gradient is noise
            assert expected.abs().max() > 1e-4, name
        torch.testing.assert_close(parameter.grad, expected, atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_loss_of_a_packed_row_equals_transformers(oracle: Any, ours: VideoLLaMA3) -> None:
    """Its packed rows come as restarting position ids, and a dense mask is made of them."""
    texts = [Sample.of(seed=seed) for seed in range(4)]
    row, labels = packed(*texts), _labels(texts)
    positions = torch.cat([torch.arange(len(s.ids)) for s in texts])[None]
    ids = row["input_ids"][None]
    theirs = oracle(input_ids=ids, position_ids=positions, labels=labels[None], use_cache=False)
    torch.testing.assert_close(ours(**row, labels=labels).loss, theirs.loss, atol=1e-6, rtol=1e-6)


def _through_the_head(model: VideoLLaMA3, row: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits that the head made, and the loss."""
    made: list[Tensor] = []
    hook = model.language.lm_head.register_forward_hook(lambda _head, _inputs, logits: made.append(logits))
    with torch.no_grad():
        out = model(**row, labels=labels)
    hook.remove()
    assert out.logits is None
    (logits,) = made
    return logits, out.loss


def test_head_runs_on_labelled_rows_only(ours: VideoLLaMA3) -> None:
    sample = SAMPLES["one image"]
    labels = _labels([sample])
    with torch.no_grad():
        every = ours(**packed(sample)).logits
    some, loss = _through_the_head(ours, packed(sample), labels)
    learned = (labels != -100).nonzero().squeeze(1)
    assert 0 < len(learned) < len(every)
    torch.testing.assert_close(some, every[learned - 1], atol=1e-5, rtol=0)
    expected = -every[learned - 1].log_softmax(-1)[range(len(learned)), labels[learned]].mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


def test_first_token_of_a_sample_has_no_prediction(ours: VideoLLaMA3) -> None:
    texts = [Sample.of(seed=1), Sample.of(seed=2)]
    row = packed(*texts)
    logits, _ = _through_the_head(ours, row, row["input_ids"].clone())
    assert len(logits) == len(row["input_ids"]) - 2


def test_loss_is_divided_by_the_tokens_of_the_whole_step(ours: VideoLLaMA3) -> None:
    row, labels = packed(SAMPLES["text"]), _labels([SAMPLES["text"]])
    mean, part = ours(**row, labels=labels).loss, ours(**row, labels=labels, label_count=1000).loss
    torch.testing.assert_close(part * 1000, mean * (labels != -100).sum())


def test_row_without_labels_has_no_loss_and_no_gradient(ours: VideoLLaMA3) -> None:
    row = packed(SAMPLES["one image"])
    loss = ours(**row, labels=torch.full_like(row["input_ids"], -100)).loss
    assert loss == 0
    ours.zero_grad()
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in ours.parameters())


@pytest.mark.parametrize("name", SAMPLES)
def test_greedy_answers_equal_transformers(oracle: Any, ours: VideoLLaMA3, name: str) -> None:
    sample = SAMPLES[name]
    theirs = oracle.generate(**sample.theirs(), max_new_tokens=20, do_sample=False, eos_token_id=None)
    ours.language.generation_config.eos_token_id = None
    (answer,) = ours.generate(**packed(sample), max_new_tokens=20)
    assert answer.tolist() == theirs[0, len(sample.ids) :].tolist()
    assert len(set(answer.tolist())) > 2


def test_answers_of_a_packed_row_equal_those_of_its_samples(ours: VideoLLaMA3) -> None:
    samples = list(SAMPLES.values())
    ours.language.generation_config.eos_token_id = None
    together = ours.generate(**packed(*samples), max_new_tokens=12)
    assert [a.tolist() for a in together] == [
        ours.generate(**packed(s), max_new_tokens=12)[0].tolist() for s in samples
    ]


def test_answer_ends_with_its_end_token(ours: VideoLLaMA3) -> None:
    samples = [SAMPLES["one image"], SAMPLES["text"]]
    ours.language.generation_config.eos_token_id = None
    long = ours.generate(**packed(*samples), max_new_tokens=12)[0].tolist()
    end = long[3]
    ours.language.generation_config.eos_token_id = end
    assert ours.generate(**packed(*samples), max_new_tokens=12)[0].tolist() == long[: long.index(end) + 1]


def test_tokens_are_streamed_one_by_one(ours: VideoLLaMA3) -> None:
    heard: list[int] = []

    class Listener:
        def put(self, value: Tensor) -> None:
            heard.extend(value.flatten().tolist())

        def end(self) -> None:
            heard.append(-1)

    (answer,) = ours.generate(**packed(SAMPLES["one image"]), max_new_tokens=6, streamer=Listener())
    assert heard == [*answer.tolist(), -1]
    with pytest.raises(ValueError, match="stream one at a time"):
        ours.generate(**packed(SAMPLES["text"], SAMPLES["text"]), streamer=Listener())


def test_key_values_continue_where_they_end(ours: VideoLLaMA3) -> None:
    from transformers import DynamicCache

    key_values = DynamicCache(config=ours.language.config)
    (first,) = ours.generate(torch.arange(20, 40), max_new_tokens=4, key_values=key_values)
    assert key_values.get_seq_length() == 20 + len(first) - 1
    row = torch.cat([torch.arange(20, 40), first, torch.arange(9)])
    (second,) = ours.generate(row, max_new_tokens=8, key_values=key_values)
    assert second.tolist() == ours.generate(row, max_new_tokens=8)[0].tolist()
    empty = DynamicCache(config=ours.language.config)
    with pytest.raises(ValueError, match="continue one at a time"):
        ours.generate(**packed(SAMPLES["text"], SAMPLES["text"]), key_values=empty)


def test_sampling_follows_the_seed_and_differs_from_greedy(ours: VideoLLaMA3) -> None:
    ours.language.generation_config.eos_token_id = None
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(ours.generate(**packed(SAMPLES["text"]), max_new_tokens=12, temperature=2.0)[0].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_checkpointing_changes_no_gradient(oracle: Any) -> None:
    row, labels = packed(SAMPLES["a video"]), _labels([SAMPLES["a video"]])
    gradients = []
    for checkpointing in (False, True):
        model = ours_of(oracle).train()
        if checkpointing:
            model.enable_checkpointing()
        model(**row, labels=labels).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"keep_mask": torch.zeros(24, dtype=torch.bool)}, "24 placeholders for 0 visual tokens"),
        ({"keep_mask": torch.ones(3, dtype=torch.bool)}, "keep_mask for 3 of 24"),
        ({"pixel_values": None}, "24 placeholders for 0"),
        ({"grid_thw": None}, "without grid_thw"),
        ({"segment_lengths": torch.tensor([2, 3])}, "one packed row"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(ours: VideoLLaMA3, change: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        ours(**packed(SAMPLES["one image"]) | change)


def test_packed_row_builds_no_full_mask(ours: VideoLLaMA3, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an N x N mask")

    monkeypatch.setattr("transformers.masking_utils.sdpa_mask", refuse)
    texts = [Sample.of(seed=seed) for seed in range(3)]
    ours(**packed(*texts))


def test_image_and_video_marks_take_visual_tokens_in_order(ours: VideoLLaMA3) -> None:
    sample = SAMPLES["a video"]
    row = packed(sample)
    with torch.no_grad():
        as_video = ours(**row).logits
        row["input_ids"] = torch.tensor([i if i < 256 else IMAGE for i in sample.ids])
        torch.testing.assert_close(ours(**row).logits, as_video, atol=0, rtol=0)
