"""Runs of films and of their clips: nothing is lost on either level, and no film is decoded twice for a threshold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from manifests import Run, open_run
from manifests.clip_seconds import clip_seconds
from pipeline.execution.preview import preview
from pipeline.recipe import load_recipe, parse_recipe
from tests.films import Picture, render
from tests.runs import jobs_here, run_here

RATE = 10


def picture(number: int, moved: int = 0) -> Picture:
    """One of many pictures of noise, moved to the side."""
    noise = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
    return np.roll(noise.repeat(8, 0).repeat(8, 1), moved, 1)


def film(path: Path, shots: Sequence[int], moving: bool = True) -> Path:
    """A film of shots, each so many tenths of a second long and with a picture of its own."""
    number = abs(hash(path.stem)) % 1000 if path.stem.isalpha() else int(path.stem)
    frames = [
        picture(1000 * number + shot, frame * moving) for shot, count in enumerate(shots) for frame in range(count)
    ]
    return render(path, frames, RATE)


def recipe(pool: Path, least: float = 1.0, **cut: Any) -> dict[str, Any]:
    return {
        "name": "films",
        "pool": {"videos": str(pool)},
        "stages": [{"stage": "aspect_ratio", "keep": {"max": 2.5}}, {"stage": "scenes"}],
        "clips": {
            **cut,
            "stages": [
                {"stage": "clip_length", "keep": {"min": least}},
                {"stage": "frames", "stored": 2, "side": 64},
                {"stage": "hashes"},
            ],
        },
    }


def run_both(written: dict[str, Any], url: Path | str) -> tuple[Run, Run, dict[str, Any]]:
    """Run a recipe of films, and that of their clips; both runs, and the jobs of the second."""
    films, _ = run_here(written, url)
    of_clips = parse_recipe(written, "test").clips_of(str(url))
    assert of_clips is not None
    clips, jobs = run_here(of_clips[0].resolved(), of_clips[1])
    return films, clips, jobs


def spans(clips: Run) -> dict[str, list[tuple[float, float]]]:
    rows = clips.index.scan(["shard", "start", "end"]).drop_nulls().sort("shard", "start").collect()
    return {str(shard): [(a, b) for _, a, b in group.iter_rows()] for (shard,), group in rows.group_by("shard")}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two films with three shots each, one that is too wide, and one that is none."""
    folder = tmp_path / "films"
    folder.mkdir()
    film(folder / "1.mp4", [20, 30, 8])
    film(folder / "2.mkv", [15, 15, 25])
    render(folder / "wide.mp4", [np.full((32, 128, 3), 90, np.uint8)] * 20, RATE)
    (folder / "page.mp4").write_bytes(b"<!DOCTYPE html><title>404</title>")
    return folder


def test_films_are_cut_at_their_scenes(pool: Path, tmp_path: Path) -> None:
    _, clips, _ = run_both(recipe(pool), tmp_path / "run")
    found = spans(clips)
    assert np.allclose(found["1.mp4"], [(0.0, 2.0), (2.0, 5.0), (5.0, 5.8)], atol=0.01)
    assert np.allclose(found["2.mkv"], [(0.0, 1.5), (1.5, 3.0), (3.0, 5.5)], atol=0.01)


def test_each_film_and_each_second_is_accounted_for(pool: Path, tmp_path: Path) -> None:
    films, clips, _ = run_both(recipe(pool), tmp_path / "run")
    assert (films.funnel().rows, films.funnel().survivors) == (4, 2)
    rows = clips.manifest().collect()
    without = rows.filter(pl.col("film_id").is_null())
    assert sorted(without["shard"]) == ["page.mp4", "wide.mp4"]
    reasons = dict(without.select("shard", "drop_reason").iter_rows())
    assert reasons["wide.mp4"] == "no clips: film dropped at aspect_ratio: aspect_ratio 4 > 2.5"
    assert reasons["page.mp4"].startswith("no clips: film error at index: cannot be read as a video")
    seconds = clip_seconds(clips, films)
    assert dict(seconds.select("fate", "clips").iter_rows()) == {
        "kept": 5,
        "clip_length": 1,
        "film dropped": 0,
        "film error": 0,
    }
    assert seconds["seconds"].sum() == pytest.approx(5.8 + 5.5 + 2.0, abs=0.01)
    unknown = dict(seconds.select("fate", "unknown").iter_rows())
    assert unknown == {"kept": 0, "clip_length": 0, "film dropped": 0, "film error": 1}, "page.mp4 has no length"


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shots=st.lists(st.lists(st.integers(2, 30), min_size=1, max_size=4), min_size=1, max_size=2),
    longest=st.sampled_from([1.0, 2.5, 60.0]),
    trim=st.sampled_from([0.0, 0.3]),
    broken=st.booleans(),
)
def test_pieces_are_the_whole_films_whatever_the_settings(
    tmp_path_factory: pytest.TempPathFactory, shots: list[list[int]], longest: float, trim: float, broken: bool
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "films").mkdir()
    for number, counts in enumerate(shots):
        film(folder / "films" / f"{number}.mp4", counts)
    if broken:
        (folder / "films" / "broken.mp4").write_bytes(b"\0" * 100)
    films, clips, _ = run_both(recipe(folder / "films", longest=longest, trim=trim), folder / "run")
    assert films.funnel().rows == len(shots) + broken
    funnel = clips.funnel()
    gone = sum(stage.dropped + stage.errors + stage.pending for stage in funnel.stages)
    assert funnel.rows == clips.index.scan(["id"]).collect().height == funnel.survivors + gone
    pieces = clips.index.scan(["shard", "scene_start", "scene_end"]).drop_nulls().sort("shard", "scene_start").collect()
    lengths = dict(films.manifest(["shard", "length"]).select("shard", "length").drop_nulls().collect().iter_rows())
    for (shard,), group in pieces.group_by("shard"):
        assert group["scene_start"][0] == 0
        assert group["scene_end"][:-1].to_list() == group["scene_start"][1:].to_list()
        assert group["scene_end"][-1] == pytest.approx(lengths[shard], abs=0.002)
    assert clip_seconds(clips, films)["seconds"].sum() == pytest.approx(sum(lengths.values()), abs=0.01)


def test_moved_thresholds_need_no_film(pool: Path, tmp_path: Path) -> None:
    _, before, _ = run_both(recipe(pool, least=0.5), tmp_path / "run")
    assert before.funnel().survivors == 6
    shutil.move(pool, tmp_path / "away")
    pool.mkdir()
    with jobs_here():
        stricter = parse_recipe({**before.recipe, "stages": _with(before.recipe["stages"], least=2.0)}, "test")
        from pipeline.execution.runner import prepare, run_stages

        jobs = list(run_stages(prepare(stricter, before.url), stricter))
    assert [job.computed for job in jobs] == [0, 0, 0]
    assert open_run(before.url).funnel().survivors == 3


def _with(stages: list[dict[str, Any]], least: float) -> list[dict[str, Any]]:
    return [{**stages[0], "keep": {"min_seconds": least}}, *stages[1:]]


def test_other_cuts_keep_the_facts_of_clips_that_stay(pool: Path, tmp_path: Path) -> None:
    _, before, _ = run_both(recipe(pool), tmp_path / "run")
    ids = set(before.index.scan(["id", "start", "film_id"]).drop_nulls().collect()["id"])
    films, after, jobs = run_both(recipe(pool, longest=2.0), tmp_path / "run")
    now = after.index.scan(["id", "start", "end", "film_id"]).drop_nulls().collect()
    stayed = now.filter(pl.col("id").is_in(ids))
    assert stayed.height == 4  # 2.0, 0.8, 1.5 and 1.5 s; those of 3.0 and 2.5 s are divided
    assert jobs["frames"].computed == 4
    assert jobs["frames"].stored == 3
    assert (jobs["index"].computed, films.funnel().survivors) == (8, 2)


def test_grown_pool_computes_new_films_only(pool: Path, tmp_path: Path) -> None:
    run_both(recipe(pool), tmp_path / "run")
    film(pool / "3.mp4", [20, 20])
    written = recipe(pool)
    _, of_films = run_here(written, tmp_path / "run")
    assert of_films["scenes"].computed == 1
    _, clips, jobs = run_both(written, tmp_path / "run")
    assert jobs["frames"].computed == 2
    assert clips.funnel().survivors == 7


def test_film_that_is_dropped_later_takes_its_clips_along(pool: Path, tmp_path: Path) -> None:
    run_both(recipe(pool), tmp_path / "run")
    written = recipe(pool)
    written["stages"][1]["keep"] = {"min_length": 5.6}
    _, clips, jobs = run_both(written, tmp_path / "run")
    assert set(spans(clips)) == {"1.mp4"}
    assert clips.funnel().survivors == 2
    assert jobs["frames"].computed == 0
    rows = clips.manifest().filter(pl.col("shard") == "2.mkv").collect()
    assert rows["drop_reason"].to_list() == ["no clips: film dropped at scenes: length 5.5 < 5.6"]
    _, again, jobs = run_both(recipe(pool), tmp_path / "run")
    assert again.funnel().survivors == 5
    assert jobs["frames"].computed == 0  # its clips have their old facts


def test_changed_film_has_new_clips(pool: Path, tmp_path: Path) -> None:
    run_both(recipe(pool), tmp_path / "run")
    film(pool / "1.mp4", [12, 12, 12, 12])
    _, after, jobs = run_both(recipe(pool), tmp_path / "run")
    assert len(spans(after)["1.mp4"]) == 4
    assert jobs["frames"].computed == 4


def test_clip_of_a_film_that_changed_since_is_an_error(pool: Path, tmp_path: Path) -> None:
    films, _ = run_here({**recipe(pool), "clips": None}, tmp_path / "run")
    film(pool / "1.mp4", [20, 30, 8, 20])
    of_clips = parse_recipe(recipe(pool), "test").clips_of(films.url)
    assert of_clips is not None
    clips, _ = run_here(of_clips[0].resolved(), of_clips[1])
    errors = clips.manifest().filter(pl.col("drop_stage") == "frames").collect()["drop_reason"]
    assert len(errors) == 2
    assert all("index the pool again" in error for error in errors)


def test_clips_of_a_pool_of_images_are_refused(tmp_path: Path) -> None:
    written = {"pool": {"images": str(tmp_path)}, "clips": {"stages": []}}
    with pytest.raises(UserError, match="clips: the pool has no films"):
        parse_recipe(written, "test")
    with pytest.raises(UserError, match="reads films, and the pool has images"):
        parse_recipe({"pool": {"images": str(tmp_path)}, "stages": [{"stage": "scenes"}]}, "test")


def test_position_of_a_wrong_stage_of_clips_is_named(tmp_path: Path) -> None:
    written = recipe(tmp_path)
    written["clips"]["stages"][1]["store"] = 3
    with pytest.raises(UserError, match=r"test: clips: stages\[1\] \(frames\): unknown key 'store'"):
        parse_recipe(written, "test")


@pytest.mark.parametrize("kept", [False, True])
def test_moved_or_copied_run_reads_the_films_beside_it(pool: Path, tmp_path: Path, kept: bool) -> None:
    """The recipe of the clips names the directory in which it was made; a copy must not read that one."""
    run_both(recipe(pool), tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    if not kept:
        shutil.rmtree(tmp_path / "run")
    film(pool / "3.mp4", [20, 20])
    run_here({**recipe(pool), "clips": None}, tmp_path / "copy")
    again = load_recipe(str(tmp_path / "copy/clips/recipe.yaml"))
    clips, jobs = run_here(again.resolved(), tmp_path / "copy/clips")
    assert jobs["frames"].computed == 2
    assert clips.recipe["pool"]["clips"] == str(tmp_path / "copy")


@pytest.mark.usefixtures("here")
def test_clips_that_wait_for_stages_are_told_of(pool: Path, tmp_path: Path, vl3syn: Callable[..., Any]) -> None:
    run_both(recipe(pool), tmp_path / "run")
    done = vl3syn("clips", "--run", tmp_path / "run", "--longest", 2)
    assert done.returncode == 0, done.stderr
    assert f"4 clips are new to a stage of the run of clips: `vl3syn run {tmp_path}/run/clips/recipe" in done.stderr


@pytest.mark.parametrize("stage", ["frames", "quality", "clip_length"])
def test_stage_of_clips_over_films_is_told_where_to_go(tmp_path: Path, stage: str) -> None:
    with pytest.raises(UserError, match=r"only clips have it: name the run of clips, RUN/clips, or put the stage unde"):
        parse_recipe({"pool": {"videos": str(tmp_path)}, "stages": [{"stage": stage}]}, "test")


def test_plan_of_films_names_what_stages_over_clips_lack(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    written = recipe(pool)
    written["clips"]["stages"].append({"stage": "quality", "resources": {"num_cpus": 2000}})
    plan, _ = preview(parse_recipe(written, "test"), str(tmp_path / "run"))
    assert [stage.stage for stage in plan.clips] == ["clip_length", "frames", "hashes", "quality"]
    assert len(plan.errors) == 1
    assert plan.errors[0].startswith("quality: an actor needs 2000 CPU")
    assert plan.clips[-1].lacks == plan.errors[0]
    assert (plan.clips[1].to_compute, plan.clips[1].runs, plan.fact_bytes) == (None, "", None)
