"""A run in a notebook: its views are methods, which show themselves as text and as HTML."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import manifests
from core.errors import UserError
from manifests import Run, funnel, open_run
from manifests.run import index_table
from manifests.schemas import FILM_INDEX
from manifests.storage import Folder
from manifests.sweep import spread, sweep
from tests.conftest import jpeg
from tests.runs import run_here

HOSTILE = "<script>alert('&\u202e').jpg"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight JPEGs of 20 to 27 pixels, one with a hostile name; five of them pass."""
    folder = tmp_path_factory.mktemp("runs")
    pool = folder / "pool"
    pool.mkdir()
    for number in range(8):
        name = HOSTILE if number == 4 else f"{number}.jpg"
        (pool / name).write_bytes(jpeg(20 + number, 20 + number, number))
    recipe: dict[str, Any] = {
        "pool": {"images": str(pool)},
        "stages": [{"stage": "aspect_ratio", "as": "shape", "keep": {"min_side": 23}}, {"stage": "quality"}],
    }
    return run_here(recipe, folder / "run")[0]


def test_funnel_of_a_run_is_that_of_the_function(run: Run) -> None:
    counted = run.funnel()
    assert counted == funnel(run)
    assert (counted.rows, counted.survivors) == (8, 5)


def test_frame_of_a_funnel_has_a_row_per_stage(run: Run) -> None:
    assert run.funnel().as_frame().rows() == [
        ("index", 8, 8, 0, 0, 0),
        ("shape", 8, 5, 3, 0, 0),
        ("quality", 5, 5, 0, 0, 0),
    ]


def test_text_of_a_funnel_shows_every_stage(run: Run) -> None:
    counted = run.funnel()
    many = manifests.Funnel(8, 5, counted.stages[:1] * 40)  # polars shows ten rows by default
    assert repr(counted).startswith("8 rows, 5 survive (62.5%)\n")
    assert repr(many).count("index") == 40


def test_sweep_without_arguments_is_the_distribution(run: Run) -> None:
    assert run.sweep().equals(spread(run))
    assert set(run.sweep()["column"]) >= {"side", "quality"}


def test_sweep_of_no_axis_counts_what_is_kept(run: Run) -> None:
    assert run.sweep({}).rows() == [(5, 0)]


@pytest.mark.parametrize("thresholds", [[20, 25], (20, 25), range(20, 26, 5), np.array([20, 25]), pl.Series([20, 25])])
def test_sweep_takes_thresholds_of_any_kind(run: Run, thresholds: Any) -> None:
    expected = sweep(run, {"shape.min_side": [20, 25]})
    assert expected.select("kept", "to_compute").rows() == [(5, 3), (3, 0)]
    assert run.sweep({"shape.min_side": thresholds}).equals(expected)
    assert run.sweep(shape={"min_side": thresholds}).equals(expected)


def test_sweep_takes_one_threshold(run: Run) -> None:
    assert run.sweep(quality={"min": 0}).rows() == [(0.0, 5, 0)]


def test_sweep_combines_a_mapping_and_stages(run: Run) -> None:
    table = run.sweep({"shape.min_side": [20, 23]}, quality={"min": [0, 1]})
    assert table.columns == ["shape.min_side", "quality.min", "kept", "to_compute"]
    assert table.height == 4


@pytest.mark.parametrize(
    ("axes", "stages", "message"),
    [
        ({"quality.min": 1}, {"quality": {"min": 0}}, "quality.min is given twice"),
        ({}, {"quality": [1]}, "quality: give a mapping of rules to thresholds"),
        ({"quality.min": "0.5"}, {}, "quality.min: thresholds are numbers, not '0.5'"),
        ({"quality.min": None}, {}, "quality.min: thresholds are numbers, not None"),
        ({"quality.min": []}, {}, "quality.min: no thresholds given"),
        ({"quality.min": 7}, {}, "quality"),
    ],
)
def test_thresholds_that_make_no_sense_are_user_errors(run: Run, axes: Any, stages: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run.sweep(axes, **stages)


def test_explain_takes_a_key_or_an_id(run: Run) -> None:
    (account,) = run.explain("0.jpg")
    assert (account.status, account.drop_reason) == ("dropped", "side 20 < 23")
    id_ = account.image["id"]
    assert isinstance(id_, int)
    assert run.explain(id_) == [account]


def test_text_of_a_run_reads_no_table(run: Run) -> None:
    elsewhere = replace(run, folder=run.folder.join("nothing is here"))
    assert repr(elsewhere) == f"Run({run.url!r})"
    html = elsewhere._repr_html_()
    assert "<td>shape</td>" in html
    assert "<td>min_side 23</td>" in html


def test_html_of_an_image_escapes_its_name(run: Run) -> None:
    key = next(key for key in run.manifest().collect()["key"] if "script" in key)
    html = run.explain(key)[0]._repr_html_()
    assert "&lt;script&gt;alert(&#x27;&amp;\ufffd&#x27;)" in html
    assert "<script" not in html


def test_html_of_a_funnel_escapes_reasons(run: Run) -> None:
    stage = manifests.FunnelStage("index", 1, 0, 0, 1, 0, {"<img src=x>": 1})
    html = manifests.Funnel(1, 0, (stage,))._repr_html_()
    assert "1 &lt;img src=x&gt;" in html
    assert "<img" not in html


def test_every_public_name_of_the_package_has_a_docstring() -> None:
    names = list(_public(manifests))
    assert {"manifests.Run.sweep", "manifests.open_run", "manifests.Funnel.as_frame"} <= {name for name, _ in names}
    assert [name for name, thing in names if not inspect.getdoc(thing)] == []


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """What a package exports, and the public methods and properties of its classes."""
    yield module.__name__, module
    for name in module.__all__:
        thing = getattr(module, name)
        yield f"{module.__name__}.{name}", thing
        for member, value in vars(thing).items() if isinstance(thing, type) else ():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                yield f"{module.__name__}.{name}.{member}", value


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("stages: 5", "stages must be a list"),
        ("pool: 5", "pool a mapping"),
        ("stages: [{stage: [a], table: b}]", "names no stage and table"),
        ("stages: [{stage: a, table: ../../other/stages/a-0}]", "is not the name of a table"),
        ("stages: [{stage: a, table: ..}]", "is not the name of a table"),
    ],
)
def test_recipe_of_a_run_that_is_not_valid_is_refused(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"vl3syn: test\n{written}\n")
    with pytest.raises(UserError, match=message):
        open_run(tmp_path)


def test_index_of_a_foreign_pool_has_its_stored_columns(tmp_path: Path) -> None:
    """Its class is not imported, so the parts say whether its rows are films."""
    table = index_table(Folder.at(tmp_path), FILM_INDEX)
    known = {"id": 7, "shard": "a.mp4", "key": "a.mp4", "duration": 2.5}
    rows = pa.Table.from_pylist([{name: known.get(name) for name in FILM_INDEX.names}], FILM_INDEX)
    table.append(rows, table.next_writer(), {})
    recipe = "vl3syn: x\npool: {kind: 'no_such_package:Films', where: there}\nstages: []\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    opened = open_run(str(tmp_path))
    assert opened.manifest(["duration"]).collect().rows() == [(7, 2.5)]
    assert opened.funnel().survivors == 1
