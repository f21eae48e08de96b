"""Selections: conditions, orders and random choices of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from manifests import Run
from manifests.selection import Selection, select
from tests.stored_facts import ids_of, store_run

SCORES = {0: 0.2, 1: float("nan"), 2: 0.9, 3: None, 4: 0.5, 5: 0.5}


@pytest.fixture
def run(tmp_path: Path, make_images: Callable[..., Path]) -> Run:
    pool = make_images(tmp_path / "pool", len(SCORES))
    stage = {"stage": "quality", "keep": {"min": 0.4}}
    facts = {f"{number:06d}.jpg": {"quality": score} for number, score in SCORES.items()}
    recipe = {"name": "t", "pool": {"images": str(pool)}, "stages": [stage]}
    return store_run(tmp_path / "run", recipe, {"quality": facts})


def numbers(run: Run, selection: Selection) -> list[int]:
    names = {id_: int(key[:6]) for key, id_ in ids_of(run).items()}
    return [names[id_] for id_ in select(run, selection).ids["id"]]


def test_rows_without_a_value_come_last_in_both_directions(run: Run) -> None:
    up, down = (numbers(run, Selection(sort="quality", descending=d)) for d in (False, True))
    assert (up[0], set(up[1:3]), up[3], set(up[4:])) == (0, {4, 5}, 2, {1, 3})
    assert (down[0], set(down[1:3]), down[3], set(down[4:])) == (2, {4, 5}, 0, {1, 3})


def test_limit_keeps_the_first_and_counts_all_that_fit(run: Run) -> None:
    selected = select(run, Selection("status = 'dropped'", sort="quality", limit=1))
    assert (selected.fitting, selected.ids.height, selected.columns) == (3, 1, ("status", "quality"))
    assert numbers(run, Selection("status = 'dropped'", sort="quality", limit=1)) == [0]


def test_random_choice_depends_on_the_seed_only(run: Run) -> None:
    chosen = [tuple(numbers(run, Selection(limit=3, seed=seed))) for seed in range(12)]
    assert chosen == [tuple(numbers(run, Selection(limit=3, seed=seed))) for seed in range(12)]
    assert len(set(chosen)) > 3
    assert sorted(numbers(run, Selection(limit=99, seed=1))) == sorted(SCORES)
    drawn = numbers(run, Selection(limit=3, seed=4, sort="quality"))
    assert set(drawn) == set(chosen[4])


@pytest.mark.parametrize(
    ("sort", "said"),
    [("qualty", "no column 'qualty' to sort by; did you mean 'quality'"), ("labels", "no column 'labels'")],
)
def test_column_to_sort_by_is_checked(run: Run, sort: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        select(run, Selection(sort=sort))


def test_column_of_lists_has_no_order(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    pool = make_images(tmp_path / "pool", 1)
    facts = {"conse": {"000000.jpg": {"label": "a", "labels": ["a", "b"]}}}
    recipe = {"name": "t", "pool": {"images": str(pool)}, "stages": [{"stage": "conse"}]}
    with pytest.raises(UserError, match="has no order: sort by another column"):
        select(store_run(tmp_path / "run", recipe, facts), Selection(sort="labels"))
