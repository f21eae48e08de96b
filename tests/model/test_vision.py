from __future__ import annotations

import pytest
import torch

from model import vision
from model.config import VisionConfig, preset
from model.vision import VisionEncoder, merge, patch_positions
from tests.model.oracles import copy_vision, patches, vision_oracle

GRIDS = [(1, 4, 6), (3, 4, 2), (1, 2, 10), (1, 4, 6), (2, 8, 8)]
MERGES = [1, 2, 2, 2, 2]


def _pair(config: VisionConfig | None = None) -> tuple[torch.nn.Module, VisionEncoder]:
    oracle, encoder = vision_oracle(), VisionEncoder(config or preset("tiny").vision)
    copy_vision(oracle, encoder)
    return oracle, encoder


def test_encoder_equals_transformers_on_images_and_clips() -> None:
    oracle, encoder = _pair()
    row = patches(GRIDS), torch.tensor(GRIDS), torch.tensor(MERGES)
    theirs = oracle(row[0], grid_thw=row[1], merge_sizes=row[2]).last_hidden_state
    ours = encoder(*row)
    assert theirs.std(0).mean() > 0.1, "the weights are so small that everything would match"
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_gradients_equal_transformers() -> None:
    oracle, encoder = _pair()
    row = patches(GRIDS), torch.tensor(GRIDS), torch.tensor(MERGES)
    oracle(row[0], grid_thw=row[1], merge_sizes=row[2]).last_hidden_state.square().mean().backward()
    encoder(*row).square().mean().backward()
    theirs = {name.removeprefix("encoder."): p.grad for name, p in oracle.named_parameters()}
    for name, parameter in encoder.named_parameters():
        expected = theirs[name if name in theirs else f"embeddings.{name}"]
        assert expected.abs().max() > 0
        torch.testing.assert_close(parameter.grad, expected, atol=1e-4, rtol=1e-4)


def test_packed_images_equal_single_images() -> None:
    _, encoder = _pair()
    row = patches(GRIDS)
    packed = encoder(row, torch.tensor(GRIDS), torch.tensor(MERGES))
    items = row.split([t * h * w for t, h, w in GRIDS])
    single = [encoder(x, torch.tensor([g]), torch.tensor([m])) for x, g, m in zip(items, GRIDS, MERGES, strict=True)]
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-5, rtol=0)


def test_frame_does_not_see_other_frames() -> None:
    _, encoder = _pair()
    clip, grid, two = patches([(3, 4, 4)]), torch.tensor([(3, 4, 4)]), torch.tensor([2])
    before = encoder(clip, grid, two)
    clip[16:32] = 0.5
    changed = (encoder(clip, grid, two) - before).abs().amax(1) > 1e-4
    assert changed.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_positions_follow_the_order_of_blocks() -> None:
    assert patch_positions([(1, 2, 4)], [2]).tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3],
    ]  # fmt: skip
    assert patch_positions([(2, 1, 2)], [1]).tolist() == [[0, 0], [0, 1], [0, 0], [0, 1]]


def test_merge_is_the_mean_of_each_block() -> None:
    x = torch.arange(12.0)[:, None]
    assert merge(x, [(1, 2, 2), (1, 4, 2)], [1, 2]).squeeze(1).tolist() == [0, 1, 2, 3, 5.5, 9.5]


def test_portions_without_gradients_give_the_same_output(monkeypatch: pytest.MonkeyPatch) -> None:
    _, encoder = _pair()
    row = patches(GRIDS), torch.tensor(GRIDS), torch.tensor(MERGES)
    whole = encoder(*row)
    seen: list[int] = []
    encoder.layers[0].register_forward_hook(lambda _, inputs, out: seen.append(len(out)))
    monkeypatch.setattr(vision, "CPU_PORTION", 50)
    with torch.no_grad():
        torch.testing.assert_close(encoder(*row), whole, atol=1e-5, rtol=0)
    # 24 + 3 x 8 | 20 + 24 | 64 | 64: whole frames, a large one alone, a clip divided
    assert seen == [48, 44, 64, 64]
    monkeypatch.setattr(vision, "CPU_PORTION", 10**6)
    with torch.no_grad():
        encoder(*row)
    assert seen[4:] == [220]


def test_checkpointing_gives_the_same_gradients() -> None:
    _, encoder = _pair()
    row = patches(GRIDS), torch.tensor(GRIDS), torch.tensor(MERGES)
    encoder(*row).square().mean().backward()
    kept = [p.grad for p in encoder.parameters()]
    encoder.zero_grad()
    encoder.checkpointing = True
    calls = []
    encoder.layers[1].layer_norm2.register_forward_hook(lambda *_: calls.append(1))
    encoder(*row).square().mean().backward()
    assert len(calls) == 2, "the block is computed again in the backward pass"
    for parameter, gradient in zip(encoder.parameters(), kept, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("grid", "merge_size", "advice"),
    [
        ((1, 3, 4), 2, "multiples"),
        ((0, 4, 4), 1, "multiples"),
        ((1, 4, 4), 3, "use 1 or 2"),
        ((1, 4, 8), 2, "grids have 32"),
    ],
)
def test_grids_that_do_not_fit_are_refused(grid: tuple[int, int, int], merge_size: int, advice: str) -> None:
    encoder = VisionEncoder(preset("tiny").vision)
    with pytest.raises(ValueError, match=advice):
        encoder(patches([(1, 4, 4)]), torch.tensor([grid]), torch.tensor([merge_size]))


def test_head_width_without_rotary_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 x num_attention_heads"):
        VisionConfig(hidden_size=24, num_attention_heads=4)
