"""Gradients of packed rows: those of the samples, however they are spread over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model import Processor, VideoLLaMA3
from model.config import preset
from model.packed_row import PackedRow
from model.training.data.prepare import Prepared
from tests.model.training import training_data


def _prepared(count: int) -> list[Prepared]:
    processor = Processor.tiny()
    rows = []
    for number in range(count):
        picture: list[Any] = (
            [{"type": "image", "image": training_data.picture(number, 56 + 28 * (number % 2))}] if number % 4 else []
        )
        question = {"role": "user", "content": [*picture, "Say it."]}
        answer = {"role": "assistant", "content": training_data.caption(number) * (1 + number % 3)}
        tensors = processor([question, answer], labels=True, generation_prompt=False)
        rows.append(Prepared(str(number), number, 0, tensors, int((tensors["labels"] >= 0).sum())))
    return rows


def _gradients(
    model: VideoLLaMA3, rows: Sequence[Sequence[Prepared]], count: float
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for samples in rows:
        row = PackedRow.pack([sample.inputs for sample in samples]).with_media()
        loss = model(**row, label_count=count).loss
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_do_not_depend_on_packing() -> None:
    torch.manual_seed(0)
    model, samples = VideoLLaMA3(preset("tiny")), _prepared(8)
    count = float(sum(sample.labelled for sample in samples))
    loss, gradients = _gradients(model, [samples], count)
    loss_, gradients_ = _gradients(model, [[sample] for sample in samples], count)
    assert loss == pytest.approx(loss_, abs=1e-5)
    assert gradients.keys() == gradients_.keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients_[name], atol=1e-5, rtol=1e-4)


def test_neighbours_in_a_row_do_not_change_a_loss() -> None:
    torch.manual_seed(0)
    model, samples = VideoLLaMA3(preset("tiny")), _prepared(6)
    with torch.no_grad():
        for number, sample in enumerate(samples):
            alone = model(**sample.inputs.with_media()).loss
            others = [other for other in samples if other is not sample]
            for position in (0, 2, 5):
                row = [*others[:position], sample, *others[position:]]
                packed = PackedRow.pack([one.inputs for one in row])
                hidden = packed["labels"].clone()
                starts = [0, *torch.tensor([one.tokens for one in row]).cumsum(0).tolist()]
                hidden[: starts[position]] = -100
                hidden[starts[position + 1] :] = -100
                assert float(model(**{**packed, "labels": hidden}).loss) == pytest.approx(float(alone), abs=1e-5), (
                    number
                )
