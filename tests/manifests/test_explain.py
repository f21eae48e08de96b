"""The account of one image: what is stored about it, and what computed that."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.explain import explain
from pipeline.execution.failed import mark
from tests.pipeline.commands.test_retry import rows_of, stored_run
from tests.runs import run_here


def computed_by(url: Path, id_: int) -> object:
    from manifests import open_run

    (account,) = explain(open_run(str(url)), str(id_))
    return account.stages[0].computed_by


def test_computed_by_is_that_of_the_row_of_the_image(tmp_path: Path) -> None:
    opened = stored_run(tmp_path / "run", {0: None, 1: "server: 400 a", 2: None})  # weights abc
    table = opened.stages[0].table
    table.append(rows_of(table, {2: None}), table.next_writer(), {"weights": "new"})
    assert [computed_by(tmp_path / "run", id_) for id_ in (0, 1, 2)] == [
        {"weights": "abc"},
        {"weights": "abc"},
        {"weights": "new"},
    ]
    assert mark(opened, "short_caption").marked == 1
    assert computed_by(tmp_path / "run", 1) == {"weights": "abc"}, "the marked row is still the one that abc computed"


def test_computed_by_is_empty_without_a_stored_row(tmp_path: Path) -> None:
    opened = stored_run(tmp_path / "run", {0: None, 1: None})
    folder = opened.stages[0].table.folder
    folder.delete(opened.stages[0].table.parts()[0])
    assert [computed_by(tmp_path / "run", id_) for id_ in (0, 1)] == [{}, {"weights": "abc"}]


@pytest.mark.usefixtures("engine")
def test_values_that_were_computed_as_unknown_are_facts(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("url,width,height\nhttp://x/0,,\nhttp://x/1,9,\nhttp://x/2,,\n,,\n")
    recipe = {"pool": {"urls": str(tmp_path / "list.csv")}, "stages": [{"stage": "aspect_ratio"}]}
    opened, _ = run_here(recipe, tmp_path / "run")
    (account,) = explain(opened, "http://x/0")
    assert (account.status, account.stages[0].outcome) == ("kept", "passed")
    assert account.stages[0].facts == {"aspect_ratio": None, "side": None, "pixels": None}
    (account,) = explain(opened, "3")
    assert (account.status, account.stages[0].outcome, account.stages[0].facts) == ("error", "not reached", {})
