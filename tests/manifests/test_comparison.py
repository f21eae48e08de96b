"""What moved between two runs: each row once, with both reasons and what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests import Run, funnel
from manifests.comparison import Comparison, Place, compare
from tests.stored_facts import ids_of, store_run

MakeImages = Callable[..., Path]
Scores = dict[str, float | str | None]


def run(url: Path, pool: Path, scores: Scores, keep: dict[str, Any], **more: Any) -> Run:
    """A run with one stage, whose scores are given by key; one without a score is pending."""
    facts: dict[str, Any] = {
        key: score if isinstance(score, str) else {"quality": score} for key, score in scores.items()
    }
    stage = {"stage": "quality", "keep": keep, **more}
    return store_run(url, {"name": "t", "pool": {"images": str(pool)}, "stages": [stage]}, {"quality": facts})


@pytest.fixture
def pool(tmp_path: Path, make_images: MakeImages) -> Path:
    return make_images(tmp_path / "pool", 6)


KEYS = [f"{number:06d}.jpg" for number in range(6)]
SCORES: Scores = dict(zip(KEYS, (0.1, 0.3, 0.5, 0.7, 0.9, "broken: x"), strict=True))


def moved(result: Comparison) -> dict[tuple[str, str], int]:
    return {(str(move.before), str(move.after)): move.rows for move in result.moves}


def test_run_compared_with_itself_has_no_moves(tmp_path: Path, pool: Path) -> None:
    one = run(tmp_path / "a", pool, SCORES, {"min": 0.4})
    result = compare(one, one)
    assert (result.moves, result.stages, result.same, result.rows, result.kept) == ((), (), 6, (6, 6), (3, 3))


def test_moved_threshold_is_why_rows_left(tmp_path: Path, pool: Path) -> None:
    first, second = run(tmp_path / "a", pool, SCORES, {"min": 0.4}), run(tmp_path / "b", pool, SCORES, {"min": 0.6})
    (move,) = compare(first, second).moves
    assert (move.before, move.rows, move.ids) == (Place("kept"), 1, (ids_of(first)[KEYS[2]],))
    assert str(move.after) == "dropped: quality: quality < 0.6"
    assert move.why == "quality: min_quality 0.4 → 0.6"
    assert compare(first, second).same == 5  # rows that both drop did not move


def test_move_at_another_stage_follows_from_the_changed_one(tmp_path: Path, pool: Path) -> None:
    """A stricter rule leaves fewer images for a later one, which keeps a share of them."""
    shapes = {key: {"aspect_ratio": 1.0 + number, "side": 20, "pixels": 400} for number, key in enumerate(KEYS)}
    scores = {key: {"quality": 0.1 * number} for number, key in enumerate(KEYS)}
    first, second = (
        store_run(
            tmp_path / name,
            {
                "name": "t",
                "pool": {"images": str(pool)},
                "stages": [
                    {"stage": "aspect_ratio", "keep": {"max": most}},
                    {"stage": "quality", "keep": {"top": 0.5}},
                ],
            },
            {"aspect_ratio": shapes, "quality": scores},
        )
        for name, most in (("a", 9.5), ("b", 4.5))
    )
    whys = {str(move.before): move.why for move in compare(first, second).moves}
    assert whys == {
        "kept": "aspect_ratio: max_aspect_ratio 9.5 → 4.5",
        "dropped: quality: quality not in the top 50 %": "follows from aspect_ratio: max_aspect_ratio 9.5 → 4.5",
    }


def test_new_and_gone_rows_are_told_apart(tmp_path: Path, pool: Path, make_images: MakeImages) -> None:
    first = run(tmp_path / "a", pool, SCORES, {"min": 0.4})
    (pool / KEYS[0]).unlink()
    make_images(pool, 2, start=6)
    scores: Scores = {**dict(list(SCORES.items())[1:]), "000006.jpg": 0.8}
    second = run(tmp_path / "b", pool, scores, {"min": 0.4})
    assert moved(compare(first, second)) == {
        ("dropped: quality: quality < 0.4", "None"): 1,
        ("None", "kept"): 1,
        ("None", "pending: quality"): 1,
    }


def test_other_facts_and_settings_are_named(tmp_path: Path, pool: Path) -> None:
    engine = {"kind": "server", "timeout": 9, "url": "http://127.0.0.1:"}
    first, second = (
        store_run(
            tmp_path / model,
            {
                "name": "t",
                "pool": {"images": str(pool)},
                "stages": [
                    {"stage": "short_caption", "model": model, "engine": {**engine, "url": f"http://{model}:1"}}
                ],
            },
            {"short_caption": dict.fromkeys(KEYS, "server: 500")} if model == "a" else {},
        )
        for model in "ab"
    )
    result = compare(first, second)
    (stage,) = result.stages
    assert (stage.stage, dict(stage.settings)) == (
        "short_caption",
        {"model": ("a", "b"), "engine.url": ("http://a:1", "http://b:1")},
    )
    assert stage.facts is not None
    assert moved(result) == {("error: short_caption", "pending: short_caption"): 6}
    assert result.moves[0].why == "short_caption: other facts"


def test_stage_of_one_run_is_named(tmp_path: Path, pool: Path) -> None:
    first = store_run(tmp_path / "a", {"name": "t", "pool": {"images": str(pool)}, "stages": []}, {})
    result = compare(first, run(tmp_path / "b", pool, SCORES, {"min": 0.4}))
    assert [change.only_in for change in result.stages] == ["second"]
    assert {move.why for move in result.moves} == {"quality is only in the second run"}


@given(
    before=st.lists(st.sampled_from([0.1, 0.5, "bad: x", None, "absent"]), min_size=6, max_size=6),
    after=st.lists(st.sampled_from([0.1, 0.5, "bad: x", None, "absent"]), min_size=6, max_size=6),
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, before: list[Any], after: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        run(folder / name, pool, {k: v for k, v in zip(KEYS, side, strict=True) if v != "absent"}, {"min": 0.4})
        for name, side in (("a", before), ("b", after))
    ]
    result = compare(*runs)
    assert result.same + sum(move.rows for move in result.moves) == 6
    assert result.kept == tuple(funnel(each).survivors for each in runs)
    lost = sum(move.rows for move in result.moves if move.before == Place("kept"))
    won = sum(move.rows for move in result.moves if move.after == Place("kept"))
    assert result.kept[1] - result.kept[0] == won - lost
