"""`vl3syn run --dry-run`: what is printed, and that the run directory stays as it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.chat_server import chat_server

Call = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., Path]


@pytest.mark.usefixtures("here")
def test_plan_is_printed_and_nothing_is_written(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    recipe, run = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(
        f"pool: {{images: {make_images(tmp_path / 'pool', 30)}}}\n"
        "stages: [{stage: aspect_ratio, keep: {max: 1.3}}, {stage: hashes}]\n"
    )
    done = vl3syn("run", recipe, "--run", run, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "0 indexed, 30 new; 30 can be used" in done.stdout
    assert "at most 30" in done.stdout
    done = vl3syn("run", recipe, "--run", run, "--dry-run", "--measure", "--sample", "8", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [stage["to_compute"] for stage in printed["stages"]] == [30, 30]
    assert [stage["rows"] for stage in printed["trial"]["stages"]] == [8, 6, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool", "r.yaml"]


def test_missing_model_fails_after_the_plan(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    recipe, run = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(
        f"pool: {{images: {make_images(tmp_path / 'pool', 3)}}}\n"
        f"stages: [{{stage: coarse_caption, model: {tmp_path}/none}}]\n"
    )
    dry = vl3syn("run", recipe, "--run", run, "--dry-run", "--measure")
    assert dry.returncode == 1
    assert "coarse_caption" in dry.stdout
    assert "measured" not in dry.stdout
    assert dry.stderr == vl3syn("run", recipe, "--run", run).stderr, "one line, the same as of the run"
    assert not run.exists()


def test_missing_resources_fail_after_the_plan(
    tmp_path: Path, make_images: MakeImages, vl3syn_process: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe, run = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(
        f"pool: {{images: {make_images(tmp_path / 'pool', 3)}}}\n"
        "stages: [{stage: aspect_ratio}, {stage: hashes, resources: {num_cpus: 2000}}]\n"
    )
    dry = vl3syn_process("run", recipe, "--run", run, "--dry-run")
    assert dry.returncode == 1
    assert "hashes" in dry.stdout
    assert dry.stderr.startswith("vl3syn: hashes: an actor needs 2000 CPU")
    assert dry.stderr == vl3syn_process("run", recipe, "--run", run).stderr, "one line, the same as of the run"
    assert not run.exists()


@pytest.mark.usefixtures("here")
def test_trial_that_ends_early_is_a_failure(tmp_path: Path, make_images: MakeImages, vl3syn: Call) -> None:
    pool, recipe = make_images(tmp_path / "pool", 3), tmp_path / "r.yaml"
    with chat_server(faults=("401",), share=1.0) as server:
        stage = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
        stages = [{"stage": "aspect_ratio"}, {**stage, "resources": {"first_errors": 2}}]
        recipe.write_text(yaml.safe_dump({"pool": {"images": str(pool)}, "stages": stages}))
        done = vl3syn("run", recipe, "--run", tmp_path / "run", "--dry-run", "--measure")
    assert done.returncode == 1
    assert "the whole run: unknown" in done.stdout
    assert "the trial ended early: short_caption: " in done.stderr


def test_measure_without_dry_run_is_wrong_usage(tmp_path: Path, vl3syn: Call) -> None:
    for option in (["--measure"], ["--dry-run", "--sample", "8"]):
        done = vl3syn("run", tmp_path / "r.yaml", "--run", tmp_path / "run", *option)
        assert done.returncode == 2
        assert "give --dry-run" in done.stderr
