"""Copies that lie in two neighbouring clusters: found across their border, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from clustering.borders import BorderDuplicates, Borders
from clustering.duplicates import Duplicates
from manifests import funnel
from manifests.rules import parse_rules
from manifests.schemas import reference_column_of
from pipeline.stages.registry import stage_class
from tests.e2e.test_clusters import Vectors, pool
from tests.runs import run


def borders(nearest: list[int | None], second: list[int | None]) -> list[int | None]:
    table = pa.table({"cluster": pa.array(nearest, pa.int32()), "second_cluster": pa.array(second, pa.int32())})
    result: list[int | None] = Borders()(table)["border"].to_pylist()
    return result


def test_border_of_two_clusters_does_not_depend_on_their_order() -> None:
    one, other, elsewhere = borders([3, 7, 3], [7, 3, 8])
    assert one == other == 3 * 2**32 + 7
    assert elsewhere != one


def test_border_with_a_single_cluster_is_that_cluster() -> None:
    assert borders([0, 0, None], [None, None, None]) == [0, 0, None]


def test_columns_are_those_of_duplicates_with_a_prefix() -> None:
    both = BorderDuplicates(by=("semantic", "perceptual"))
    assert both.writes.names == [f"border_{name}" for name in Duplicates().writes.names]
    assert reference_column_of(both.writes.field("border_phash_distance")) == "border_phash_duplicate_of"
    assert BorderDuplicates().reads == ("id", "width", "height", "bytes", "border", "phash")
    (rule,) = parse_rules({"min": 11}, BorderDuplicates().writes, "here")
    assert rule.name == "min_border_phash_distance"


def across(rows: int = 240) -> pl.DataFrame:
    """Images around two centres; the last two are an original and its smaller copy, on either side of the middle."""
    dice = np.random.default_rng(0)
    angles = np.radians(np.concatenate([dice.uniform(0, 10, rows // 2), dice.uniform(80, 90, rows // 2), [44.0, 46.0]]))
    vectors = np.zeros((rows + 2, 16), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    hashes = dice.integers(-(2**63), 2**63, rows + 2, np.int64)
    hashes[-1] = hashes[-2] ^ 3
    return pl.DataFrame(
        {
            "id": np.arange(rows + 2),
            "url": [f"https://host.example/{n}.jpg" for n in range(rows + 2)],
            "width": [400] * (rows + 1) + [300],
            "height": [300] * (rows + 2),
            "vector": vectors,
            "hash": hashes,
            "score": np.ones(rows + 2, np.float32),
        }
    )


@pytest.mark.usefixtures("here")
def test_copy_in_the_neighbouring_cluster_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"vectors": Vectors}
    monkeypatch.setattr("pipeline.recipe_file.stage_class", lambda name: known.get(name) or stage_class(name))
    rows = across()
    original, copy = rows["id"].to_list()[-2:]
    stages: list[dict[str, Any]] = [
        {"stage": "vectors"},
        {"stage": "clusters", "clusters": 2},
        {"stage": "duplicates", "by": ["perceptual"], "keep": {"min": 11}},
    ]
    recipe = {"pool": pool(tmp_path / "pool", rows), "stages": stages}
    before, _ = run(recipe, tmp_path / "run")
    sides = dict(before.facts("clusters").select("id", "cluster").collect().iter_rows())
    assert sides[original] != sides[copy]
    assert before.manifest().filter(status="kept").collect().height == rows.height, "within clusters nothing is found"

    stages += [{"stage": "borders"}, {"stage": "border_duplicates", "keep": {"min": 11}}]
    opened, jobs = run(recipe, tmp_path / "run")
    assert {name: job.computed for name, job in jobs.items() if job.computed} == {
        "borders": rows.height,
        "border_duplicates": rows.height,
    }
    left = opened.manifest().filter(pl.col("status") != "kept").collect()
    assert left.select("id", "drop_reason", "border_phash_duplicate_of").rows() == [
        (copy, "border_phash_distance 2 < 11", original)
    ]
    assert funnel(opened).survivors == rows.height - 1
    assert not any(job.computed for job in run(recipe, tmp_path / "run")[1].values())
