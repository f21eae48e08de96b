"""Scores of cuts: known answers, FFmpeg's own, and what is no cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph

from core.cut_scores import CutScorer, Luma
from tests.model.clips import real

FPS = 25


def flat(level: int) -> Luma:
    return np.full((36, 64), level, np.int16)


def textured(seed: int, shift: int = 0) -> Luma:
    """A picture of blocks, moved by some pixels."""
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 32)).repeat(8, 0).repeat(8, 1)
    return blocks[:36, shift : shift + 64].astype(np.int16)


def cuts(pictures: Iterable[Luma], fps: float = FPS) -> dict[int, float]:
    """The numbers of the frames that may start a scene, with their scores."""
    scorer = CutScorer()
    for number, picture in enumerate(pictures):
        scorer.add(number / fps, picture)
    scorer.finish()
    numbers = [round(time * fps) for time in scorer.times]
    return dict(zip(numbers, scorer.scores, strict=True))


def test_score_of_a_hard_cut_is_the_share_of_256_levels() -> None:
    pictures = [*repeat(flat(50), 20), *repeat(flat(114), 20), *repeat(flat(108), 20)]
    assert cuts(pictures) == {20: 25.0, 40: pytest.approx(100 * 6 / 256)}


def test_difference_below_2_percent_is_no_candidate() -> None:
    assert cuts([*repeat(flat(50), 20), *repeat(flat(55), 20)]) == {}


def test_cut_in_moving_film_scores_by_how_much_it_stands_out() -> None:
    pictures = [*(textured(1, k) for k in range(30)), *(textured(2, k) for k in range(30))]
    difference = np.abs(textured(2, 0) - textured(1, 29)).mean() * 100 / 256
    motion = np.abs(textured(1, 29) - textured(1, 28)).mean() * 100 / 256
    assert motion > 2
    assert cuts(pictures) == {30: pytest.approx(difference - motion, rel=1e-6)}


def test_motion_that_starts_or_stops_is_no_cut() -> None:
    pictures = [*repeat(textured(1), 20), *(textured(1, k) for k in range(30)), *repeat(textured(1, 29), 20)]
    assert np.abs(textured(1, 1) - textured(1, 0)).mean() * 100 / 256 > 2
    assert cuts(pictures) == {}


def test_slow_transitions_are_no_cuts() -> None:
    dissolve = [(textured(1) * (12 - k) + textured(2) * k) // 12 for k in range(13)]
    assert cuts([*repeat(textured(1), 20), *dissolve, *repeat(textured(2), 20)]) == {}


def test_cut_with_one_blended_frame_is_one_cut() -> None:
    """As in films whose frame rate was converted."""
    blended = (2 * textured(1) + 3 * textured(2)) // 5
    assert list(cuts([*repeat(textured(1), 20), blended, *repeat(textured(2), 20)])) == [20]


def test_shaken_camera_makes_no_cuts() -> None:
    steps = np.random.default_rng(0).integers(1, 4, 100)
    pictures = [textured(1, int(3 + step * (-1) ** k)) for k, step in enumerate(steps)]
    differences = [np.abs(after - before).mean() * 100 / 256 for before, after in pairwise(pictures)]
    assert max(np.diff(differences)) > 8, "the plain rise would be a cut"
    assert cuts(pictures) == {}


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_flash_and_its_end_are_no_cuts(frames: int) -> None:
    before, after = ([textured(1) + k // 4 for k in span] for span in (range(20), range(20 + frames, 40)))
    assert cuts([*before, *repeat(flat(250), frames), *after]) == {}
    assert cuts([*before, *repeat(flat(250), frames), *(textured(2) for _ in after)]) != {}


def test_insert_of_a_third_of_a_second_is_two_cuts() -> None:
    assert list(cuts([*repeat(flat(50), 20), *repeat(flat(200), 8), *repeat(flat(50), 20)])) == [20, 28]


def test_first_and_last_frames_may_start_a_scene() -> None:
    assert list(cuts([flat(50), flat(50), flat(200), flat(200)])) == [2]
    assert list(cuts([*repeat(flat(50), 5), flat(200)])) == [5]
    assert cuts([flat(50), flat(200)]) == {}, "nothing shows whether that was motion"
    assert cuts([flat(50)]) == cuts([]) == {}


def test_slow_film_has_cuts_at_each_of_its_frames() -> None:
    """With a frame every half second there is no following frame within a flash."""
    pictures = list(chain.from_iterable(repeat(flat(level), 3) for level in (20, 200, 20, 200)))
    assert list(cuts(pictures, fps=2)) == [3, 6, 9]
    assert list(cuts([*repeat(flat(20), 3), flat(200), *repeat(flat(20), 3)], fps=2)) == [3]


def test_few_frames_are_held() -> None:
    """Even where every second one of a thousand frames a second may be a cut."""
    pictures = (textured(number // 2) for number in range(600))
    tracemalloc.start()
    cuts(pictures, fps=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * flat(0).nbytes


def filter_scores(path: Path) -> Sequence[tuple[Luma, float]]:
    """The luma of each frame of a film, and the score that FFmpeg's filter gives it."""
    scored = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = Graph()
        steps = [graph.add("scale", "160:68"), graph.add("format", "yuv420p"), graph.add("scdet", "threshold=100")]
        graph.link_nodes(graph.add_buffer(template=stream), *steps, graph.add("buffersink")).configure()
        for frame in container.decode(stream):
            graph.vpush(frame)
            scaled = graph.vpull()
            rows = np.frombuffer(scaled.planes[0], np.uint8).reshape(68, -1)
            scored.append((rows[:, :160].astype(np.int16), float(scaled.metadata["lavfi.scd.score"])))
    return scored


@pytest.mark.skipif(not hasattr(av.VideoFrame, "metadata"), reason="PyAV passes metadata on from 18.1")
def test_scores_are_those_of_the_filter_scdet() -> None:
    scored = filter_scores(real("bikes"))
    found = cuts(luma for luma, _ in scored)
    assert len(found) == 5
    assert found == {number: pytest.approx(scored[number][1], abs=1e-3) for number in found}
    assert {number for number, (_, score) in enumerate(scored) if score >= 4} == set(found)
