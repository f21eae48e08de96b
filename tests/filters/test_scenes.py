"""The stage `scenes`: its columns, its error rows, and rules about it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import BadSampleError
from core.films import FilmFile
from core.scene_cuts import SceneCuts
from core.stages import FILM
from filters.scenes import Scenes
from manifests.rules import parse_rules
from manifests.schemas import is_bulky
from pipeline.stages.registry import stage_class
from tests.model.clips import real


def member(path: Path) -> FilmFile:
    return FilmFile(path.name, open=partial(open, path, "rb"))


def test_columns_of_a_real_film_are_right() -> None:
    """A street with bicycles, cut five times."""
    stage = Scenes()
    loaded = stage.load()
    facts = loaded([loaded.prepare(member(real("bikes")), 10.0), loaded.prepare(member(real("carphone")), None)])
    assert facts.schema.equals(stage.writes, check_metadata=True)
    bikes, phone = facts.to_pylist()
    assert bikes["cuts"] == 5
    assert bikes["cut_times"] == pytest.approx([1.2, 3.04, 5.48, 7.48, 9.68])
    assert bikes["cut_scores"] == pytest.approx([26.9, 10.6, 16.3, 18.5, 18.7], abs=0.1)
    assert (bikes["length"], len(bikes["key_times"])) == (pytest.approx(10), 6)
    assert (phone["cuts"], phone["cut_times"], phone["key_times"]) == (0, [], [0.0])
    assert set(loaded.provenance) == {"av", "ffmpeg"}


def test_number_of_cuts_counts_those_of_the_default_pieces() -> None:
    """Of the candidates 3.9 is too low, and 3.0 s is too near to a higher one."""
    found = SceneCuts([1.0, 2.0, 3.0, 3.5], [4.0, 3.9, 5.0, 6.0], [0.0], 5.0, 50)
    (row,) = Scenes().load()([found]).to_pylist()
    assert row["cuts"] == 2
    assert row["cut_times"] == [1.0, 2.0, 3.0, 3.5]


def test_no_films_give_no_rows() -> None:
    facts = Scenes().load()([])
    assert facts.schema.equals(Scenes().writes)
    assert facts.num_rows == 0


def test_film_that_cannot_be_read_is_a_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "part.mp4").write_bytes(real("bikes").read_bytes()[:20_000])
    with pytest.raises(BadSampleError, match=r"^part\.mp4: "):
        Scenes().load().prepare(member(tmp_path / "part.mp4"), 10.0)


def test_stage_reads_films_and_rules_apply_to_its_cuts() -> None:
    stage = Scenes()
    assert stage_class("scenes") is Scenes
    assert FILM in stage.reads
    rules = parse_rules({"max": 40, "min_length": 2}, stage.writes, "scenes")
    assert {(rule.kind, rule.column) for rule in rules} == {("max", "cuts"), ("min", "length")}
    assert [field.name for field in stage.writes if is_bulky(field)] == ["cut_times", "cut_scores", "key_times"]
    assert pa.types.is_list(stage.writes.field("cut_times").type)
