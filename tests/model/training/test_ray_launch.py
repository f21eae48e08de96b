"""Several workers by Ray Train, on CPUs: FSDP2 over gloo, through the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.training.metrics_log import read_metrics
from model.training.recipe import parse_recipe
from model.training.run import train
from tests.model.training import training_data

ROOT = Path(__file__).parents[3]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def _written(folder: Path, steps: int = 20) -> dict[str, Any]:
    """One stage over images, pairs of them, and text."""
    written = training_data.recipe(folder, steps=steps, rows=4)
    stage = {**written["stages"][1], "name": "only"}
    return written | {"stages": [stage], "save_every": 4, "ask": 0}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of 20 steps."""
    return _trained_alone(tmp_path_factory.mktemp("alone"), 20)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of 6 steps."""
    return _trained_alone(tmp_path_factory.mktemp("few"), 6)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(_written(tmp_path)))
    return tmp_path / "recipe.yaml"


def _trained_alone(folder: Path, steps: int) -> Path:
    written = _written(folder, steps)
    train(parse_recipe(written, "test"), folder / "out")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(written))
    return folder


def _steps(out: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(out) if record["kind"] == "step"]


def _is_the_same(out: Path, other: Path, steps: int = 20) -> None:
    """Losses within 1e-5, the same samples in each step, weights as near as 20 steps of Adam let them be."""
    ours, theirs = _steps(out), _steps(other)
    assert [step["step"] for step in ours] == list(range(1, steps + 1))
    for name in ("samples", "tokens", "labelled", "patches"):
        assert [step[name] for step in ours] == [step[name] for step in theirs], name
    for one, another in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(another["loss"], abs=1e-5)
    weights, expected = (load_file(folder / "1-only/model/model.safetensors") for folder in (out, other))
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3)


@pytest.mark.thorough
@pytest.mark.timeout(600)  # 40 s on an idle machine
def test_two_workers_give_the_weights_of_one_process(
    vl3syn_process: CommandLine, engine: str, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster that runs already."""
    monkeypatch.setenv("RAY_ADDRESS", engine)
    done = vl3syn_process("train", few / "recipe.yaml", "--run", tmp_path, "--workers", 2, "--cpus", timeout=500)
    assert done.returncode == 0, done.stderr
    _is_the_same(tmp_path, few / "out", steps=6)


def test_user_error_is_one_line_before_a_worker_starts(vl3syn: CommandLine, tmp_path: Path, recipe: Path) -> None:
    done = vl3syn("train", recipe, "--run", tmp_path / "out", "--workers", 3, "--cpus")
    assert done.returncode == 1
    assert "stage only: 4 lanes for 3 workers: make `lanes` (which divides `rows`) a multiple" in done.stderr
    assert "Traceback" not in done.stderr


def test_relative_run_is_refused_on_a_cluster(
    vl3syn: CommandLine, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing answers at this address."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    done = vl3syn("train", recipe, "--run", "runs/1", "--workers", 2, "--cpus")
    assert done.returncode == 1
    assert done.stderr.startswith("vl3syn: --run: runs/1 is a relative path")


@pytest.mark.slow
def test_user_error_in_a_worker_is_one_line(vl3syn_process: CommandLine, tmp_path: Path, alone: Path) -> None:
    written = yaml.safe_load((alone / "recipe.yaml").read_text())
    written["stages"][0]["learning_rates"] = {"vision": 1e-3, "language": 1e-3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    out = tmp_path / "out"
    done = vl3syn_process("train", tmp_path / "recipe.yaml", "--run", out, "--workers", 2, "--cpus", timeout=280)
    assert done.returncode == 1
    assert re.search(r"^vl3syn: .*projector.*$", done.stderr, re.M), done.stderr


@pytest.mark.slow
def test_bug_in_a_worker_shows_its_traceback(
    vl3syn_process: CommandLine, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import numpy\nimport model.processor\n"
        "model.processor.plan_sizes = lambda *_: numpy.zeros(3) + numpy.zeros(4)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    command = ["train", alone / "recipe.yaml", "--run", tmp_path / "out", "--workers", 2, "--cpus"]
    done = vl3syn_process(*command, "--max-failures", 0, timeout=280)
    assert done.returncode == 1
    assert "\nvl3syn: " not in done.stderr
    assert "Traceback (most recent call last):" in done.stderr.partition("TrainingFailedError")[0]
    assert "ValueError: operands could not be broadcast together with shapes (3,) (4,)" in done.stderr


def _killed_worker(process: subprocess.Popen[str], step: int) -> list[str]:
    """Kill -9 the worker that tells of this step, once; all lines."""
    assert process.stdout
    lines, killed = [], False
    for line in process.stdout:
        lines.append(line)
        match = re.search(rf"pid=(\d+).*only {step}/20", line)
        if match and not killed:
            os.kill(int(match[1]), signal.SIGKILL)
            killed = True
    assert killed, "".join(lines)
    return lines


@pytest.mark.slow
def test_killed_worker_restarts_from_a_checkpoint(tmp_path: Path, alone: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "train", alone / "recipe.yaml", "--run", tmp_path]
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2", "--cpus"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    lines = _killed_worker(process, 10)
    assert process.wait() == 0, "".join(lines)
    assert any(re.search(r"goes on after step (4|8|12)", line) for line in lines), "".join(lines)
    _is_the_same(tmp_path, alone / "out")


@pytest.mark.slow
def test_change_of_workers_keeps_the_order_of_samples(vl3syn_process: CommandLine, tmp_path: Path, alone: Path) -> None:
    """Each stopped by a kill of the whole, as a cluster does it that ends a job."""
    for workers, step in ((1, 5), (2, 13)):
        command = [sys.executable, "-m", "pipeline", "train", alone / "recipe.yaml", "--run", tmp_path]
        process = subprocess.Popen(
            [*map(str, command), "--workers", str(workers), "--cpus"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert process.stdout
        assert any(f"only {step}/20" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert vl3syn_process("train", alone / "recipe.yaml", "--run", tmp_path).returncode == 0
    _is_the_same(tmp_path, alone / "out")
