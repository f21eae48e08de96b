from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.videos import probe
from model.frames import decode
from model.images import normalise, patchify, resize
from model.prune import Pruning, keep_mask
from tests.model.clips import REAL, real


def _clip(changes: list[list[float]]) -> Tensor:
    """Patches (m = 1, X = 12) of frames that add these changes to the tokens of the frame before."""
    frames = torch.tensor(changes).cumsum(0)
    return frames.flatten()[:, None].expand(-1, 12).contiguous()


def _kept(changes: list[list[float]], pruning: Pruning) -> list[list[bool]]:
    grid = (len(changes), 1, len(changes[0]))
    return keep_mask(_clip(changes), grid, 1, pruning).view(grid[0], -1).tolist()


def test_worked_example_of_the_reference_is_reproduced() -> None:
    """facts: +0.5, +0.09/255, +0.11/255 and nothing at frames 1 to 4: 4, 1, 1 (fallback), 1, 1 (fallback) kept."""
    small = 1 / 255
    changes = [[0.0] * 4, [0, 0.5, 0, 0], [0, 0, 0.09 * small, 0], [0, 0, 0, 0.11 * small], [0.0] * 4]
    kept = _kept(changes, Pruning())
    assert [sum(frame) for frame in kept] == [4, 1, 1, 1, 1]
    assert kept[1][1]
    assert kept[2][0], "the fallback is the first token, not the one that changed most"
    assert kept[3][3]
    assert kept[4][0]


@pytest.mark.parametrize("name", REAL)
def test_pruning_of_real_clips_equals_transformers_bit_for_bit(name: str) -> None:
    from transformers import VideoLlama3VideoProcessor

    video = probe(real(name), fps=4, max_frames=24)
    frames, _ = decode(video, (video.height, video.width))
    processor = VideoLlama3VideoProcessor(size={"shortest_edge": 16 * 784, "longest_edge": 2000 * 784})
    theirs = processor([frames], return_tensors="pt", do_sample_frames=False)
    t, h, w = theirs["video_grid_thw"][0].tolist()
    levels = patchify(resize(frames, (h * 14, w * 14)), 14, 2)
    ours = normalise(levels)
    assert torch.equal(ours, theirs["pixel_values_videos"])
    for patches in (levels, ours):
        assert torch.equal(keep_mask(patches, (t, h, w), 2, Pruning()), theirs["video_compression_mask"])
    # The published threshold keeps nearly all; others cut where pixels differ little.
    for threshold in (2.0, 20.0):
        expected = processor._get_compression_mask(
            ours, theirs["video_grid_thw"], theirs["video_merge_sizes"], threshold=threshold, min_tokens=3
        )
        mask = keep_mask(levels, (t, h, w), 2, Pruning(threshold=threshold, min_tokens=3))
        assert torch.equal(mask, expected)
    assert not mask.all()


def test_grey_levels_are_half_the_unit_of_the_reference() -> None:
    """Grey levels of 0 to 255 become -1 to 1: one level is 2/255."""
    changes = [[0.0, 0.0], [5 * 2 / 255, 7 * 2 / 255]]
    assert _kept(changes, Pruning(threshold=6, unit="grey")) == [[True, True], [False, True]]
    assert _kept(changes, Pruning(threshold=12)) == [[True, True], [False, True]]


def test_slow_drift_is_seen_against_the_last_kept_token() -> None:
    drift = [[0.0, 0.0]] + [[2 / 255, 0.0]] * 6  # one grey level a frame
    assert [frame[0] for frame in _kept(drift[:], Pruning(threshold=2.5, unit="grey", min_tokens=1))][1:] == [True] * 6
    moved = [[second, first] for first, second in drift]  # the fallback keeps the first token, so watch the second
    assert [f[1] for f in _kept(moved, Pruning(threshold=2.5, unit="grey"))] == [True] + [False] * 6
    against = Pruning(threshold=2.5, unit="grey", against="kept")
    assert [f[1] for f in _kept(moved, against)] == [True, False, False, True, False, False, True]


def test_every_frame_keeps_its_minimum() -> None:
    still = [[0.0] * 5] * 3
    assert [sum(f) for f in _kept(still, Pruning(min_tokens=2))] == [5, 2, 2]


def test_image_or_clip_without_pruning_keeps_every_token() -> None:
    assert keep_mask(torch.zeros(8, 12), (1, 4, 2), 2, Pruning()).tolist() == [True, True]
    assert keep_mask(torch.zeros(16, 12), (2, 4, 2), 2, None).tolist() == [True] * 4


@pytest.mark.parametrize("wrong", [{"threshold": -1}, {"min_tokens": 0}, {"unit": "percent"}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Pruning(**wrong)  # type: ignore[arg-type]
