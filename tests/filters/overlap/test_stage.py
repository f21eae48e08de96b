"""The stage `overlap`: its columns, the rule, and the benchmark's hash in the fingerprint."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import UserError
from filters.overlap.benchmark import Benchmark
from filters.overlap.stage import Overlap
from manifests import open_run
from pipeline.execution.node_check import check_absolute
from pipeline.recipe import parse_recipe
from tests.filters.overlap.pictures import cropped, jpeg, png, scene
from tests.runs import run_here


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(png(scene(number)))
    return folder


@pytest.mark.usefixtures("here")
def test_rule_drops_the_images_of_a_benchmark(benchmark: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "same.png").write_bytes(png(scene(0)))
    (pool / "crop.jpg").write_bytes(jpeg(cropped(scene(1), 0.1, 0, 0.05, 0.12)))
    (pool / "other.jpg").write_bytes(jpeg(scene(7)))
    stage = {"stage": "overlap", "benchmark": str(benchmark), "keep": {"max": 0}}
    run_here({"pool": {"images": str(pool)}, "stages": [stage]}, tmp_path / "run")
    run = open_run(tmp_path / "run")
    rows = {row["key"]: row for row in run.manifest().collect().iter_rows(named=True)}
    assert {key: row["status"] for key, row in rows.items()} == {
        "same.png": "dropped",
        "crop.jpg": "dropped",
        "other.jpg": "kept",
    }
    assert (rows["same.png"]["overlap_kind"], rows["same.png"]["overlap_with"]) == ("file", "0.png")
    assert rows["crop.jpg"]["overlap_kind"] == "crop"
    assert (rows["other.jpg"]["overlap"], rows["other.jpg"]["overlap_kind"]) == (0, None)
    assert run.recipe["stages"][0]["content"] == Benchmark(str(benchmark)).content


def test_fingerprint_is_about_the_content_not_the_path(benchmark: Path, tmp_path: Path) -> None:
    before = Overlap(benchmark=str(benchmark)).fingerprint_settings()
    moved = benchmark.rename(tmp_path / "moved")
    assert Overlap(benchmark=str(moved)).fingerprint_settings() == before
    (moved / "1.png").unlink()
    after = Overlap(benchmark=str(moved))
    assert after.fingerprint_settings() != before
    assert Overlap.model_validate(after.model_dump()) == after


def test_relative_benchmark_is_refused_on_a_cluster(benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(benchmark.parent)
    stages = [{"stage": "overlap", "benchmark": benchmark.name}]
    recipe = parse_recipe({"pool": {"images": "/pool"}, "stages": stages}, "/run")
    check_absolute(recipe, "/run")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"^overlap: benchmark: benchmark is a relative path"):
        check_absolute(recipe, "/run")


def test_unread_parts_of_the_benchmark_are_warned_of(benchmark: Path, caplog: pytest.LogCaptureFixture) -> None:
    (benchmark / "rows.jsonl").write_text('{"image": "gone.png"}\n{"sha": 1}\n')
    stage = Overlap(benchmark=str(benchmark))
    assert "1 images that cannot be read, the first: rows.jsonl:1: gone.png" in caplog.text
    assert "1 rows without an image" in caplog.text
    (benchmark / "0.png").write_bytes(b"no image")
    assert Overlap(benchmark=str(benchmark)).load().provenance["benchmark_unread"] == 3
    assert Overlap.model_validate(stage.model_dump()) == stage


def test_benchmark_that_changed_since_the_recipe_is_refused(benchmark: Path) -> None:
    stage = Overlap(benchmark=str(benchmark))
    (benchmark / "2.png").write_bytes(png(scene(2)))
    with pytest.raises(UserError, match="leave `content` out"):
        stage.load()


def test_texts_are_searched_and_missing_ones_passed_over(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("Which vehicle is parked beside the lighthouse?\n")
    stage = Overlap(benchmark=str(tmp_path / "q.txt"), texts=("alt_text",))
    assert stage.reads == ("image", "encoded", "alt_text")
    facts, image = stage.load(), scene(3)
    texts = ["which vehicle is parked beside the lighthouse", "a lighthouse", None]
    table = facts([facts.prepare(image, png(image), text) for text in texts])
    assert table.schema.equals(stage.writes, check_metadata=True)
    assert table["overlap_kind"].to_pylist() == ["text", None, None]
    assert table["overlap"].to_pylist() == [1, 0, 0]
    with pytest.raises(UserError, match="int64, not text"):
        stage.validate_inputs({"alt_text": pa.field("alt_text", pa.int64())})
